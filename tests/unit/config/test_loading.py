"""A file and an environment to a configuration: precedence, origins, notes, and the text of each error."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.config import SETTINGS, Config, Enable, Settings, load, load_text, render
from marchproxy_core.config.choices import TIER_NAMES
from marchproxy_core.errors import ConfigError, ConfigProblem

FILE = Path("f.yaml")
SERVICE = "services: [{name: web, ip: 10.0.0.1, port: 80}]\n"


def read(text: str, environ: Mapping[str, str] | None = None, tiers: tuple[str, ...] = TIER_NAMES) -> Config:
    return load_text(text.encode(), FILE, environ or {}, tiers)


def errors(
    text: str, environ: Mapping[str, str] | None = None, tiers: tuple[str, ...] = TIER_NAMES
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, environ, tiers)
    assert caught.value.exit_status == 2
    return [str(problem) for problem in caught.value.problems]


def test_nothing_given_is_all_defaults() -> None:
    config = load(None, {}, TIER_NAMES)
    assert config.settings == Settings()
    assert config.notes == ("no service is configured",)
    assert config.origins == {}


def test_the_environment_wins_over_the_file() -> None:
    text = "settings:\n  drain_timeout: 1m\n  IDLE_TIMEOUT: 10\n" + SERVICE
    config = read(text, {"DRAIN_TIMEOUT": "5", "READ_TIMEOUT": "  ", "HOME": "/"})
    assert (config.settings.drain_timeout, config.settings.idle_timeout) == (5.0, 10.0)
    assert {name: str(origin) for name, origin in config.origins.items()} == {
        "DRAIN_TIMEOUT": "env DRAIN_TIMEOUT",
        "IDLE_TIMEOUT": "f.yaml:3",
    }


def test_a_yaml_list_and_text_say_the_same() -> None:
    listed = read("settings: {xdp_interface: [eth0, eth1], proxy_cpu_affinity: [4-7, 9]}\n")
    assert (
        listed.settings
        == read("settings: {xdp_interface: 'eth0,eth1', proxy_cpu_affinity: '4-7,9'}\n").settings
    )
    assert listed.settings.proxy_cpu_affinity == (4, 5, 6, 7, 9)


@pytest.mark.parametrize("word", ["true", "on", "yes", "1", "True"])
def test_tiers_are_enabled_by_any_true_word(word: str) -> None:
    config = read(
        f"settings: {{enable_af_xdp: {word}}}\n",
        {"ENABLE_SR_IOV": "no", "ENABLE_ACME_FAST": "auto"},
        ("acme-fast",),
    )
    assert config.settings.enable == {"afxdp": Enable.TRUE, "sriov": Enable.FALSE, "acme-fast": Enable.AUTO}


def test_what_is_not_installed_is_a_note() -> None:
    config = read(
        "settings:\n  xdp_mode: skb\n  ebpf_maps_size: 5\n" + SERVICE, {"ENABLE_DPDK": "auto"}, ("sockets",)
    )
    assert config.notes == (
        "f.yaml:2: XDP_MODE acts on xdp, which is not installed",
        "f.yaml:3: EBPF_MAPS_SIZE acts on dpdk, xdp, afxdp, sriov, ebpf, none of which is installed",
        "env ENABLE_DPDK: ENABLE_DPDK acts on dpdk, which is not installed",
    )


def test_gomaxprocs_counts_only_without_worker_threads() -> None:
    alone = read(SERVICE, {"GOMAXPROCS": "8"})
    assert (alone.settings.worker_threads, str(alone.origins["WORKER_THREADS"])) == (8, "env GOMAXPROCS")
    assert alone.notes == ("env GOMAXPROCS: GOMAXPROCS is taken as WORKER_THREADS; set that instead",)
    beside = read("settings: {worker_threads: 2}\n" + SERVICE, {"GOMAXPROCS": "8"})
    assert beside.settings.worker_threads == 2
    assert beside.notes == ("env GOMAXPROCS: GOMAXPROCS is not used, since WORKER_THREADS is set",)


@pytest.mark.parametrize(("text", "threshold"), [("100", 700), ("50", 350), ("off", 0), ("0", 1)])
def test_gogc_scales_the_collector(text: str, threshold: int) -> None:
    config = read(SERVICE, {"GOGC": text})
    assert config.settings.gc_threshold == threshold
    assert len(config.notes) == 1
    assert Settings().gc_threshold is None


@pytest.mark.parametrize(
    ("settings", "want"),
    [
        (
            "drain_timeout: soon",
            'f.yaml:2: settings.drain_timeout: got "soon", '
            "want seconds (or a number with ms, s, m, h or d) from 0 to 2592000",
        ),
        (
            "drain_timeot: 1",
            "f.yaml:2: settings.drain_timeot: want a known name; did you mean drain_timeout?",
        ),
        (
            "Drain_Timeout: 1",
            "f.yaml:2: settings.Drain_Timeout: want a known name; did you mean drain_timeout?",
        ),
        ("worker_threads: [1]", "f.yaml:2: settings.worker_threads: got 1, want an integer from 0 to 1024"),
        (
            "worker_threads: {a: 1}",
            "f.yaml:2: settings.worker_threads: got a mapping, want an integer from 0 to 1024",
        ),
        ("worker_threads: -1", "f.yaml:2: settings.worker_threads: got -1, want an integer from 0 to 1024"),
        ("xdp_mode: generic", 'f.yaml:2: settings.xdp_mode: got "generic", want one of native, skb, hw'),
        (
            "af_xdp_queue_size: 1000",
            "f.yaml:2: settings.af_xdp_queue_size: got 1000, want a power of two from 64 to 65536 frames",
        ),
        (
            "dpdk_cores: 7-4",
            'f.yaml:2: settings.dpdk_cores: got "7-4", want CPU numbers and ranges as 4-7,9, from 0 to 8191',
        ),
        (
            "admin_token: a b",
            "f.yaml:2: settings.admin_token: got (not shown), "
            "want 1 to 512 printable ASCII characters without spaces",
        ),
        (
            "drain_timeout: 1\n  DRAIN_TIMEOUT: 2",
            "f.yaml:3: settings.DRAIN_TIMEOUT: got it again in other letters, want it once",
        ),
        ("tier_order: [xpd]", 'f.yaml:2: TIER_ORDER: got "xpd", want names of tiers; did you mean xdp?'),
        (
            "af_xdp_batch_size: 4096",
            "f.yaml:2: AF_XDP_BATCH_SIZE: got 4096 with AF_XDP_QUEUE_SIZE 2048, want a batch not above the queue",
        ),
        (
            "admin_listen: 0.0.0.0:9000",
            "f.yaml:2: ADMIN_LISTEN: got an address that others can reach (0.0.0.0:9000), "
            "want a loopback address or unix:/path, or ADMIN_TOKEN set too",
        ),
    ],
)
def test_errors_of_settings(settings: str, want: str) -> None:
    assert errors(f"settings:\n  {settings}\n{SERVICE}") == [want]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        (
            "just text\n",
            'f.yaml:1: file: got "just text", want settings: and services:, or a list of services',
        ),
        ("service: []\n", "f.yaml:1: service: want a known name; did you mean services?"),
        ("settings: 3\n", "f.yaml:1: settings: got 3, want a mapping of settings"),
        ("services: {a: 1}\n", "f.yaml:1: services: got a mapping, want a list of services"),
        ("- web\n", 'f.yaml:1: services[0]: got "web", want a mapping that describes a service'),
    ],
)
def test_errors_of_shape(text: str, want: str) -> None:
    assert errors(text) == [want]


@pytest.mark.parametrize(
    ("name", "value", "want"),
    [
        (
            "WORKER_THREADS",
            "many",
            'env WORKER_THREADS: WORKER_THREADS: got "many", want an integer from 0 to 1024',
        ),
        ("ENABLE_XPD", "true", "env ENABLE_XPD: ENABLE_XPD: want a known setting; did you mean ENABLE_XDP?"),
        ("AF_XDP_MOD", "", "env AF_XDP_MOD: AF_XDP_MOD: want a known setting; did you mean AF_XDP_MODE?"),
        ("PROXY_PORT", "80", "env PROXY_PORT: PROXY_PORT: want a known setting"),
        ("LOG_LEVLE", "info", "env LOG_LEVLE: LOG_LEVLE: want a known setting; did you mean LOG_LEVEL?"),
        ("NAT_\n", "", "env NAT_\\n: NAT_\\n: want a known setting"),
    ],
)
def test_errors_of_the_environment(name: str, value: str, want: str) -> None:
    assert errors(SERVICE, {name: value}) == [want]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAX_MEMORY", "1"),
        ("LOG_FILE", "x"),
        ("SERVICE_HOST", "x"),
        ("BACKEND_URL", "x"),
        ("PROXY_SERVICE_HOST", "10.0.0.1"),
        ("PROXY_SERVICE_PORT_HTTP", "80"),
        ("ADMIN_PORT", "tcp://10.0.0.1:80"),
        ("ADMIN_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("enable_xpd", "true"),
    ],
)
def test_strangers_in_the_environment_are_let_pass(name: str, value: str) -> None:
    assert read(SERVICE, {name: value}).origins == {}


def test_prefixes_at_the_door() -> None:
    assert errors(SERVICE, {"DOOR_BLOCK": "10.1.2.3/16"}) == [
        'env DOOR_BLOCK: DOOR_BLOCK: got "10.1.2.3/16", want IPv4 or IPv6 prefixes as 192.0.2.0/24, or addresses, '
        "each once, separated by commas or as a YAML list; did you mean 10.1.0.0/16?"
    ]
    assert errors(SERVICE, {"DOOR_BLOCK": "10.0.0.0/8"}) == [
        "env DOOR_BLOCK: DOOR_BLOCK: got a prefix with backend 10.0.0.1:80 of service web in it, whose answers "
        "would be dropped, want 10.0.0.1 in DOOR_ALLOW, or blocks without it"
    ]
    assert read(SERVICE, {"DOOR_BLOCK": "10.0.0.0/8", "DOOR_ALLOW": "10.0.0.1"}).settings.door_allow
    both = {"DOOR_BLOCK": "11.0.0.0/8,192.0.2.0/24", "DOOR_ALLOW": "11.0.0.0/8"}
    assert errors(SERVICE, both) == [
        "env DOOR_ALLOW: DOOR_ALLOW: got 11.0.0.0/8 as in DOOR_BLOCK, want each prefix in one of the two"
    ]


def test_all_problems_come_at_once() -> None:
    text = "settings:\n  xdp_mode: x\n  nope: 1\nservices:\n- name: a\n  port: 0\n- port: 1\n"
    assert errors(text, {"LOG_LEVEL": "loud"}) == [
        'f.yaml:2: settings.xdp_mode: got "x", want one of native, skb, hw',
        "f.yaml:3: settings.nope: want a known name",
        "f.yaml:6: services[0].port: got 0, want an integer from 1 to 65535",
        "f.yaml:5: services[0].ip: got nothing, want ip and port of the service, or backends",
        "f.yaml:7: services[1].name: got nothing, want a name",
        "f.yaml:7: services[1].ip: got nothing, want ip and port of the service, or backends",
        'env LOG_LEVEL: LOG_LEVEL: got "loud", want one of debug, info, warning, error, critical',
    ]


def test_a_broken_document_does_not_hide_a_broken_environment() -> None:
    found = errors("a: [\n", {"LOG_LEVEL": "loud"})
    assert [error.split(": ")[0] for error in found] == ["f.yaml:2", "env LOG_LEVEL"]


def test_load_reads_the_file_of_the_path(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(SERVICE)
    config = load(path, {}, TIER_NAMES)
    assert (config.path, config.services[0].origin) == (path, f"{path}:1")
    with pytest.raises(ConfigError, match="want a readable file"):
        load(tmp_path / "none", {}, TIER_NAMES)


WORDS = st.sampled_from(
    [
        "settings",
        "services",
        "name",
        "port",
        "listen",
        "backends",
        "weight",
        "flush",
        "80",
        "10.0.0.1",
        "web",
        "udp",
        "true",
        "null",
        "x",
        "<<",
    ]
    + [name.lower() for name in list(SETTINGS)[:12]]
)
TREES = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def problems_of(text: str, environ: Mapping[str, str]) -> tuple[ConfigProblem, ...]:
    try:
        read(text, environ)
    except ConfigError as exc:
        return exc.problems or pytest.fail("an error without a problem")
    return ()


@given(st.dictionaries(st.sampled_from(["settings", "services"]), TREES) | TREES)
def test_any_tree_loads_or_is_a_config_error(tree: object) -> None:
    assert all(problem.where.startswith("f.yaml:") for problem in problems_of(yaml.safe_dump(tree), {}))


NAMES = st.sampled_from([*SETTINGS, "ENABLE_XDP", "ENABLE_", "LOG_", "TIER_X"]) | st.text(max_size=12)


@given(
    st.dictionaries(NAMES, st.text(max_size=12) | st.sampled_from(["1", "0x1", "1-2", "\udcff"]), max_size=5)
)
def test_any_environment_loads_or_is_a_config_error(environ: dict[str, str]) -> None:
    texts = [str(problem) for problem in problems_of("", environ)]
    assert all(text.startswith("env ") and text.isprintable() for text in texts)


VALUES = {
    "worker_threads": st.integers(0, 1024),
    "drain_timeout": st.integers(0, 10_000).map(lambda n: n / 8),
    "proxy_cpu_affinity": st.sets(st.integers(0, 300)).map(lambda cpus: tuple(sorted(cpus))),
    "max_memory_mb": st.none() | st.integers(16, 1 << 24),
    "global_connection_rate": st.none() | st.integers(1, 10**9).map(lambda n: n / 1000),
    "nat_source_addresses": st.lists(
        st.ip_addresses().filter(
            lambda ip: not ip.is_unspecified and not ip.is_multicast and not getattr(ip, "scope_id", None)
        ),
        unique=True,
        max_size=3,
    ).map(tuple),
    "nat_port_range": st.none() | st.integers(1, 65535).map(lambda n: (n, 65535)),
    "dpdk_port_mask": st.none() | st.integers(1, (1 << 64) - 1),
    "tier_order": st.permutations(TIER_NAMES).map(tuple),
    "enable": st.dictionaries(st.sampled_from(TIER_NAMES), st.sampled_from(Enable)),
    "backend_keep_alive": st.booleans(),
    "gogc": st.none() | st.integers(-1, 1000),
    "admin_token": st.just(None),
}


@given(st.fixed_dictionaries({}, optional=VALUES))
def test_what_render_prints_loads_to_the_same(values: dict[str, object]) -> None:
    settings = Settings(**values)  # type: ignore[arg-type]
    printed = {one.name: one.value for one in render(Config(settings=settings))}
    from_file = read(yaml.safe_dump({"settings": printed})).settings
    assert from_file == load(None, printed, TIER_NAMES).settings
    complete = dict.fromkeys(TIER_NAMES, Enable.AUTO) | dict(settings.enable)
    assert from_file == Settings(**{**values, "enable": complete})  # type: ignore[arg-type]


def test_secrets_are_masked_when_printed() -> None:
    config = read("settings: {admin_token: hunter2}\n", {"ADMIN_LISTEN": "unix:/run/m.sock"})
    (token,) = (one for one in render(config) if one.name == "ADMIN_TOKEN")
    assert (token.value, token.origin) == ("***", "f.yaml:1")
    assert "hunter2" not in repr(config) + repr(render(config))


def test_every_setting_is_printed_with_its_origin() -> None:
    printed = {
        one.name: one for one in render(read("settings: {drain_timeout: 90}\n", {"ENABLE_XDP": "off"}))
    }
    assert set(SETTINGS) < set(printed)
    assert (printed["DRAIN_TIMEOUT"].value, printed["DRAIN_TIMEOUT"].origin) == ("90", "f.yaml:1")
    assert (printed["ENABLE_XDP"].value, printed["ENABLE_XDP"].origin) == ("false", "env ENABLE_XDP")
    assert (printed["MAX_MEMORY_MB"].value, printed["MAX_MEMORY_MB"].unset) == ("", "no limit")
    assert printed["READ_TIMEOUT"].origin == "default"


def test_addresses_are_parsed_into_addresses() -> None:
    settings = read("settings: {nat_source_addresses: '::1'}\n").settings
    assert settings.nat_source_addresses == (ipaddress.IPv6Address("::1"),)
