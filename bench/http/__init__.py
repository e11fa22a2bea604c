"""HTTP side by side: ``python -m bench.http``."""
