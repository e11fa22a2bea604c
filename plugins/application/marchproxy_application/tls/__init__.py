"""TLS: certificates and the contexts made of them, kept fresh; and what a ClientHello says, without terminating it."""
