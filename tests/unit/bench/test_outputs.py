"""What generators print, as they printed it (wrk 4.1.0, iperf3 3.12, h2load of nghttp2 1.52.0)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import outputs
from bench.outputs import NotUnderstood

WRK = """\
Running 4s test @ http://198.18.0.1:8000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.93ms    1.01ms  21.66ms   97.61%
    Req/Sec    72.12k     3.52k   76.48k    82.50%
  Latency Distribution
     50%  837.00us
     75%    0.97ms
     90%    1.11ms
     99%    1.57ms
  287112 requests in 4.00s, 45.73MB read
Requests/sec:  71777.96
Transfer/sec:     11.43MB
"""
H2LOAD = """\
finished in 2.00s, 98449.00 req/s, 14.07MB/s
requests: 98449 total, 98449 started, 98449 done, 98449 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 98449 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 14.07MB (14752650) total, 13.12MB (13760514) headers (space savings 0.00%), 373.29KB (382254) data
"""
ERRORS = "  Socket errors: connect 1, read 64, write 2, timeout 3\n"


def test_rate_and_latency_of_wrk_in_microseconds():
    assert outputs.wrk(WRK) == {"rate": 71777.96, "p50_us": 837.0, "p99_us": 1570.0, "errors": 0.0}


def test_latency_of_wrk_in_seconds():
    assert outputs.wrk(WRK.replace("1.57ms", "1.20s"))["p99_us"] == 1_200_000.0


def test_errors_that_wrk_met_are_an_error_with_its_own_words():
    with pytest.raises(NotUnderstood, match="connect 1, read 64, write 2, timeout 3"):
        outputs.wrk(WRK + ERRORS)


def test_bad_statuses_count_as_errors():
    with pytest.raises(NotUnderstood, match="Non-2xx or 3xx responses: 5"):
        outputs.wrk(WRK + "  Non-2xx or 3xx responses: 5\n")


def test_bearable_errors_are_counted():
    assert outputs.wrk(WRK + ERRORS, bearable_errors=70)["errors"] == 70.0


def test_a_report_of_wrk_without_latency_is_an_error():
    with pytest.raises(NotUnderstood, match="no rate or latency"):
        outputs.wrk("Requests/sec:  71777.96\n")


def test_iperf3_gives_what_the_receiver_got_in_gigabits():
    report = {"end": {"sum_sent": {"bits_per_second": 9e9}, "sum_received": {"bits_per_second": 8.5e9}}}

    assert outputs.iperf3(json.dumps(report)) == 8.5


def test_a_failure_of_iperf3_is_told_in_its_own_words():
    report = {"start": {}, "end": {}, "error": "unable to receive control message: Connection reset by peer"}

    with pytest.raises(NotUnderstood, match="unable to receive control message"):
        outputs.iperf3(json.dumps(report))


def test_a_test_in_which_nothing_was_received_is_no_figure():
    with pytest.raises(NotUnderstood, match="nothing was received"):
        outputs.iperf3(json.dumps({"end": {"sum_received": {"bits_per_second": 0}}}))


def test_counts_of_udp_traffic():
    printed = '{"sent": 101, "echoed": 100, "seconds": 2.0}\n'

    assert outputs.udp_traffic(printed) == {"sent": 101.0, "echoed": 100.0, "seconds": 2.0}


def test_udp_traffic_without_an_echo_is_no_figure():
    with pytest.raises(NotUnderstood, match="no datagram came back"):
        outputs.udp_traffic('{"sent": 101, "echoed": 0, "seconds": 2.0}')


def test_volume_of_wrk_in_requests_and_bytes():
    assert outputs.wrk_volume(WRK) == (287112, 45.73 * 2**20)


def test_wrk_without_a_request_has_no_volume():
    with pytest.raises(NotUnderstood, match="no requests"):
        outputs.wrk_volume("  0 requests in 2.00s, 0.00B read\n")


def test_requests_that_h2load_had_answered():
    assert outputs.h2load(H2LOAD) == 98449


@pytest.mark.parametrize(
    ("was", "now"),
    [("0 failed", "3 failed"), ("0 timeout", "1 timeout"), ("0 5xx", "2 5xx"), ("98449 2xx", "0 2xx")],
)
def test_errors_that_h2load_met_are_an_error(was, now):
    with pytest.raises(NotUnderstood, match=f"h2load met errors: .*{now}"):
        outputs.h2load(H2LOAD.replace(was, now))


def test_latency_from_the_log_of_h2load():
    log = "".join(f"1795543282646510\t200\t{took}\n" for took in range(100, 0, -1))

    assert outputs.h2load_log(log) == {"p50_us": 51.0, "p99_us": 100.0}


def test_a_report_of_our_own_generators_has_every_figure_asked_for():
    printed = '{"echoed": 10, "seconds": 2.0, "p50_us": 5}\n'

    assert outputs.report(printed, "echoed", "seconds") == {"echoed": 10.0, "seconds": 2.0}
    with pytest.raises(NotUnderstood, match="no report with echoed, p99_us"):
        outputs.report(printed, "echoed", "p99_us")


def test_a_report_of_nothing_is_no_figure():
    with pytest.raises(NotUnderstood, match="nothing came through"):
        outputs.report('{"count": 0, "seconds": 2.0}', "count", "seconds")


@pytest.mark.parametrize(
    "read",
    [
        outputs.wrk,
        outputs.wrk_volume,
        outputs.iperf3,
        outputs.udp_traffic,
        outputs.h2load,
        outputs.h2load_log,
        lambda output: outputs.report(output, "count", "seconds"),
    ],
)
@given(
    output=st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
)
def test_anything_else_is_an_error_not_a_figure(read, output):
    with pytest.raises(NotUnderstood):
        read(output)
