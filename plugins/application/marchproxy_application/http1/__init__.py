"""HTTP/1.1 (RFC 9112), read strictly and written anew. Pure: no sockets, no clock."""
