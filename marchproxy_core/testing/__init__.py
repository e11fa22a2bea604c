"""What an author of a tier tests with: conformance kit, fake tier, fault rig, network-namespace laboratory."""

from __future__ import annotations

from marchproxy_core.testing.census import ResourceCensus, assert_nothing_leaked
from marchproxy_core.testing.conformance import TierConformance
from marchproxy_core.testing.fake_tier import FakeTier
from marchproxy_core.testing.fake_worker_tier import FakeWorkerTier
from marchproxy_core.testing.fault_rig import Fault, FaultyTier, How, Stage
from marchproxy_core.testing.lab import Lab, LabUnavailable, Namespace, open_lab
from marchproxy_core.testing.laws import LAWS, obey
from marchproxy_core.testing.subject import CannotRun, NotApplicable, Subject
from marchproxy_core.testing.waiting import until
from marchproxy_core.testing.wire import Wire, open_lab_wire, open_loopback_wire

__all__ = [
    "LAWS",
    "CannotRun",
    "FakeTier",
    "FakeWorkerTier",
    "Fault",
    "FaultyTier",
    "How",
    "Lab",
    "LabUnavailable",
    "Namespace",
    "NotApplicable",
    "ResourceCensus",
    "Stage",
    "Subject",
    "TierConformance",
    "Wire",
    "assert_nothing_leaked",
    "obey",
    "open_lab",
    "open_lab_wire",
    "open_loopback_wire",
    "until",
]
