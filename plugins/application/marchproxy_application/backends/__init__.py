"""Connections to backends, and the pools that keep them."""
