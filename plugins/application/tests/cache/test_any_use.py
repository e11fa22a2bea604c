"""Whatever clients, backend and clock do: no answer is older than it may be, and none is another URL's or client's."""

from __future__ import annotations

import sys

from hypothesis import given, settings
from hypothesis import strategies as st

from marchproxy_application.cache.answers import Fetch, Hit, Validate, Wait
from marchproxy_application.cache.http_cache import HttpCache
from marchproxy_application.cache.messages import Request, make_field
from marchproxy_application.cache.saving import Saving

LIFETIME_S = 10
STALE_S = 5
STEPS = st.one_of(
    st.tuples(st.just("pass"), st.integers(1, 8)),
    st.tuples(st.just("get"), st.sampled_from([b"/a", b"/b"]), st.sampled_from([b"1", b"2"])),
    st.tuples(st.just("answer"), st.integers(0, 3)),
    st.tuples(st.just("lose"), st.integers(0, 3)),
    st.tuples(st.just("post"), st.sampled_from([b"/a", b"/b"])),
    st.tuples(st.just("purge"), st.just(b"/a")),
)


class Run:
    """Clients whose requests end in any order; the backend's versions are its clock."""

    def __init__(self):
        self.cache = HttpCache(max_bytes=1 << 16, unreachable_s=0.0)
        self.now_s = 1_800_000_000.0
        self.under_way = []
        self.woken = 0
        self.waits = 0
        self.changed_s = {}

    def get(self, path, value):
        request = Request(b"GET", b"http", b"h", path, [make_field(b"Foo", value)])
        answer = self.cache.look_up(request, self.now_s)
        if isinstance(answer, Hit):
            self.check(answer, path, value)
            if answer.refresh is not None:
                self.send(answer.refresh, path, value)
        elif isinstance(answer, Wait):
            self.waits += 1
            answer.flight.wait(self.wake)
        else:
            assert isinstance(answer, Fetch)
            self.send(answer, path, value)

    def wake(self):
        self.woken += 1

    def send(self, fetch, path, value):
        self.under_way.append((fetch, path, value, self.now_s))

    def check(self, hit, path, value):
        made_s, own_path, own_value = hit.body.split()
        assert (own_path, own_value) == (path, value)
        age_s = self.now_s - float(made_s)
        assert age_s < LIFETIME_S + STALE_S
        assert age_s <= hit.age_s + 1
        assert float(made_s) > self.changed_s.get(path, 0.0)

    def answer(self, number):
        if number < len(self.under_way):
            fetch, path, value, sent_s = self.under_way.pop(number)
            times = {"request_time_s": sent_s, "response_time_s": self.now_s}
            control = b"max-age=%d, stale-while-revalidate=%d" % (LIFETIME_S, STALE_S)
            fields = [make_field(b"Cache-Control", control), make_field(b"Vary", b"Foo")]
            saving = self.cache.begin(fetch, 200, b"OK", fields, **times)
            if isinstance(saving, Saving):
                saving.add(b"%f %b %b" % (sent_s, path, value))
                saving.finish()
            else:
                assert self.now_s - sent_s >= LIFETIME_S

    def lose(self, number):
        if number < len(self.under_way):
            fetch = self.under_way.pop(number)[0]
            if not isinstance(fetch, Validate) or self.cache.stale(fetch, self.now_s) is None:
                self.cache.abandon(fetch, self.now_s, failed=True)

    def post(self, path):
        self.changed_s[path] = self.now_s
        self.cache.invalidate(Request(b"POST", b"http", b"h", path, []), 200, [], self.now_s)

    def purge(self, path):
        self.changed_s[path] = self.now_s
        self.cache.purge_url((b"http", b"h", path), self.now_s)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=60))
def test_no_answer_is_older_than_it_may_be(steps):
    run = Run()
    for name, *arguments in steps:
        if name == "pass":
            run.now_s += arguments[0]
        else:
            getattr(run, name)(*arguments)
    while run.under_way:
        run.answer(0)
    assert run.woken == run.waits, "nobody waits for ever"


def test_it_needs_neither_sockets_nor_a_clock():
    code = [
        module for name, module in sys.modules.items() if name.startswith("marchproxy_application.cache.")
    ]
    assert len(code) > 10
    for module in code:
        assert not {"socket", "time", "select", "threading"} & set(vars(module))
