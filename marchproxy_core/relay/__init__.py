"""What a worker process relays TCP and UDP with: one epoll loop, and all that sockets, application and others share.

``worker`` follows the control process's word; ``loop`` runs everything; ``carried`` is one service as this worker has
it; ``accepting`` takes clients; ``tcp`` and ``udp`` move bytes as they are.
"""
