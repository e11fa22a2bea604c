"""What is known of a WebSocket after its handshake: where its frames end (RFC 6455, section 5). Pure."""
