"""Configurations as text, and requests to them."""

from __future__ import annotations

import pytest

from marchproxy_core.config import load
from marchproxy_core.explaining.asked import asked_of
from marchproxy_core.explaining.requests import explain_request
from marchproxy_core.model import Candidate, Decision, Path, Plan, ServicePlan

NOW_S = 1_000_000.0


def planned(config, tier):
    """Have one tier carry everything, or nobody anything."""
    chain = (tier,) if tier else ()
    candidates = (Candidate(tier or "none", taken=bool(tier), reason="for the test"),)
    return Plan(
        tiers=(),
        services=tuple(
            ServicePlan(
                service=service,
                path=Path.SLOW,
                chain=chain,
                decision=Decision(
                    subject=f"tier of service {service.name}", chosen=tier, candidates=candidates
                ),
            )
            for service in config.services
        ),
    )


@pytest.fixture
def explain(tmp_path):
    """Explain a request under a configuration in YAML, a list of services."""

    def explain(services, method, url, *headers, listen=None, tier="application"):
        path = tmp_path / "rules.yaml"
        path.write_text(f"services:\n{services}")
        config = load(path, {}, ("application",))
        return explain_request(
            asked_of(method, url, headers), config, planned(config, tier), listen=listen, now_s=NOW_S
        )

    return explain
