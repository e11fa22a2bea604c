"""What wrk, iperf3 and our own UDP generator print, as they printed it (wrk 4.1.0, iperf3 3.12)."""

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


@pytest.mark.parametrize("read", [outputs.wrk, outputs.iperf3, outputs.udp_traffic])
@given(
    output=st.one_of(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
)
def test_anything_else_is_an_error_not_a_figure(read, output):
    with pytest.raises(NotUnderstood):
        read(output)
