"""The xdp tier: the packet engine in the NIC's driver."""
