"""Memory is bounded, what is used stays, and what is found is what was put there last."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from marchproxy_application.cache.freshness import Life
from marchproxy_application.cache.messages import make_field
from marchproxy_application.cache.store import Store
from marchproxy_application.cache.stored import make_stored
from marchproxy_application.cache.vary import Variant

LIFE = Life(
    born_s=0.0,
    fresh_until_s=60.0,
    stale_until_s=60.0,
    error_until_s=60.0,
    unreachable_until_s=60.0,
    must_validate=False,
    is_shared=True,
)


def response(path, body=b"", names=(), values=(), when_s=0.0):
    return make_stored(
        Variant((b"http", b"h", path), names, values),
        status=200,
        reason=b"OK",
        fields=[],
        body=body,
        life=LIFE,
        response_time_s=when_s,
    )


def test_what_is_used_stays_and_what_passes_by_goes():
    one = response(b"/000", b"x" * 1000)
    store = Store(10 * one.size_bytes)
    store.put(one)
    for number in range(1, 200):
        one.is_used = True
        store.put(response(b"/%03d" % number, b"x" * 1000))
    assert store.has(one)
    assert len(store) == 10
    assert store.evicted == 190


def test_a_response_that_has_no_room_at_all():
    store = Store(500)
    store.put(response(b"/"))
    assert (len(store), store.size_bytes) == (0, 0)


def test_the_newest_of_those_that_fit_is_used():
    store = Store(1 << 20)
    store.put(response(b"/", b"of all", when_s=1.0))
    store.put(response(b"/", b"of foo", (b"foo",), (b"1",), when_s=2.0))
    foo = [make_field(b"Foo", b"1")]
    assert store.find((b"http", b"h", b"/"), foo).body == b"of foo"
    assert store.find((b"http", b"h", b"/"), []).body == b"of all"
    store.put(response(b"/", b"of all", when_s=3.0))
    assert store.find((b"http", b"h", b"/"), foo).body == b"of all"


@given(st.lists(st.integers(0, 9), max_size=30))
def test_a_url_has_few_sets_of_names(numbers):
    store = Store(1 << 20)
    for number in numbers:
        store.put(response(b"/", names=(b"n%d" % number,), values=(b"x",)))
    assert len(store) <= 4
    if numbers:
        assert store.find((b"http", b"h", b"/"), [make_field(b"n%d" % numbers[-1], b"x")]) is not None


class Model(RuleBasedStateMachine):
    """The store against a dictionary of what was put last."""

    def __init__(self):
        super().__init__()
        self.store = Store(12_000)
        self.last = {}

    @rule(
        path=st.sampled_from([b"/a", b"/b", b"/c"]),
        value=st.sampled_from([b"1", b"2"]),
        size=st.integers(0, 3000),
    )
    def put(self, path, value, size):
        stored = response(path, b"x" * size, (b"foo",), (value,))
        self.store.put(stored)
        self.last[path, value] = stored

    @rule(path=st.sampled_from([b"/a", b"/b", b"/c"]), value=st.sampled_from([b"1", b"2"]))
    def find(self, path, value):
        found = self.store.find((b"http", b"h", path), [make_field(b"Foo", value)])
        if found is not None:
            assert found is self.last[path, value]
            found.is_used = True

    @rule(path=st.sampled_from([b"/a", b"/b", b"/c"]))
    def drop_url(self, path):
        url = (b"http", b"h", path)
        there = len(self.store.variants(url))
        assert self.store.drop_url(url) == there
        assert self.store.names_of(url) is None

    @rule()
    def drop_where(self):
        self.store.drop_where(lambda url: url[2] == b"/a")
        assert self.store.variants((b"http", b"h", b"/a")) == []

    @invariant()
    def adds_up(self):
        there = [
            each for path in (b"/a", b"/b", b"/c") for each in self.store.variants((b"http", b"h", path))
        ]
        assert len(there) == len(self.store)
        assert sum(each.size_bytes for each in there) == self.store.size_bytes <= 12_000


TestModel = Model.TestCase
