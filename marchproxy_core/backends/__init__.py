"""What every tier shares about backends: balancing, limits, health. Only ``health_checks`` does I/O."""

from __future__ import annotations

from marchproxy_core.backends.balancing import Balancer, make_balancer
from marchproxy_core.backends.health_board import BackendRow, HealthBoard, HealthChange
from marchproxy_core.backends.health_state import CheckResult, EjectionPolicy
from marchproxy_core.backends.limits import LeakyBucket, Limit, Limits, global_limit, service_limit
from marchproxy_core.backends.maglev import maglev_slot, maglev_table

__all__ = [
    "BackendRow",
    "Balancer",
    "CheckResult",
    "EjectionPolicy",
    "HealthBoard",
    "HealthChange",
    "LeakyBucket",
    "Limit",
    "Limits",
    "global_limit",
    "maglev_slot",
    "maglev_table",
    "make_balancer",
    "service_limit",
]
