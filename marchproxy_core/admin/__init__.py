"""The admin API: what an operator sees of a running daemon over HTTP, and may ask of it."""
