"""Authentication by JSON Web Tokens (RFC 7519): keys, the checking of tokens, and key sets kept fresh."""
