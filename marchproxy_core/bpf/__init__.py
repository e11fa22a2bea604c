"""BPF: bcc compiles, and what it cannot do goes through bpf(2) and netlink.

Everything here blocks, for microseconds (maps) up to seconds (compiling): call it in a thread.
"""
