"""The ebpf tier: the packet engine at TC ingress, on any Ethernet interface."""
