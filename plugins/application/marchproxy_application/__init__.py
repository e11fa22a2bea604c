"""MarchProxy's full-feature tier: HTTP, TLS, authentication, cache. `plugin.py` has its hooks."""
