"""The HTTP cache (RFC 9111), shared by all clients of one service in one worker. Pure: no sockets, no clock."""
