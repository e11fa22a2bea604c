"""HTTP/2 (RFC 9113) and its WebSockets (RFC 8441), around the h2 library. Pure: no sockets, no clock of its own."""
