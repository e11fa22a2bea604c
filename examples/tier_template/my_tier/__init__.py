"""A tier for MarchProxy that relays TCP."""
