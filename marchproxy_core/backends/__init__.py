"""What every tier shares about backends: balancing, limits, health. Decides; only ``health_checks`` does I/O.

Import from the submodules: a worker that balances needs none of the health checks' code.
"""
