"""MarchProxy's tier for every host: TCP and UDP relays on plain sockets."""
