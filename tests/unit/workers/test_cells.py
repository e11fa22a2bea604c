"""Cells are given once, kept over reloads, and given again only when nobody can write to them any more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marchproxy_core.errors import ListenError
from marchproxy_core.services import Backend, Endpoint, Service
from marchproxy_core.workers.cells import CellBook
from marchproxy_core.workers.ledger import SERVICE_CELLS

HERE = Endpoint.parse("192.0.2.1:80")


def service(name: str, *backends: int) -> Service:
    return Service(
        name=name,
        listen=(HERE,),
        backends=tuple(Backend(endpoint=Endpoint.parse(f"192.0.2.9:{port}")) for port in backends or (1,)),
    )


def cells_of(book: CellBook) -> list[int]:
    """Every cell in use, as often as it is given."""
    found = []
    for given_ in book.given.values():
        found += range(given_.first, given_.first + SERVICE_CELLS)
        found += given_.active.values()
    return found


def test_a_service_keeps_its_cells_and_those_of_backends_that_are_gone() -> None:
    book = CellBook()
    book.assign([service("a", 1, 2)], 1)
    before = book.given["a"]
    book.assign([service("b"), service("a", 2, 3)], 2)
    after = book.given["a"]
    assert after.first == before.first
    assert {port.port for port in after.active} == {1, 2, 3}
    assert all(after.active[endpoint] == cell for endpoint, cell in before.active.items())


def test_cells_are_given_again_only_when_every_worker_has_the_table() -> None:
    book = CellBook()
    cleared: list[tuple[int, int]] = []
    book.assign([service("a")], 1)
    first = book.given["a"].first
    book.assign([], 2)
    book.reclaim(1, lambda *block: cleared.append(block))
    assert cleared == []
    book.assign([service("b")], 3)
    assert book.given["b"].first != first
    book.reclaim(2, lambda *block: cleared.append(block))
    assert (first, SERVICE_CELLS) in cleared
    book.assign([service("b"), service("c")], 4)
    assert book.given["c"].first == first


def test_too_many_services_are_refused_with_what_to_do() -> None:
    book = CellBook(size=8 + 2 * SERVICE_CELLS)
    with pytest.raises(ListenError, match="split the configuration"):
        book.assign([service("a"), service("b")], 1)


@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.sets(st.integers(1, 5), min_size=1)), max_size=12)
)
def test_no_cell_is_ever_given_twice(tables) -> None:
    book = CellBook()
    for version, table in enumerate(tables, start=1):
        book.assign([service(name, *sorted(ports)) for name, ports in table.items()], version)
        book.reclaim(version - 1, lambda first, length: None)
        cells = cells_of(book)
        assert len(cells) == len(set(cells))
        assert min(cells, default=8) >= 8
        assert set(book.given) == set(table)
