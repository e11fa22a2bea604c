"""Packets a second on one core: the packet engine beside nftables and the least that XDP can do."""
