"""Tables as a terminal and as Markdown show them."""

from __future__ import annotations

import io

from rich.console import Console

from bench import tabulating
from bench.tabulating import Sheet

SHEET = Sheet(
    title="Rates",
    head=("flows", "through", "rate"),
    rows=[("1", "one", ""), ("1", "other", ""), ("2", "one", "")],
    text=frozenset({"through"}),
    grouped_by=1,
)


def shown(sheet):
    console = Console(file=io.StringIO(), width=60)
    console.print(tabulating.rich_table(sheet))
    return console.file.getvalue().splitlines()


def test_markdown_has_numbers_at_the_right_and_text_at_the_left():
    assert tabulating.markdown([SHEET, SHEET]).splitlines()[:5] == [
        "## Rates",
        "",
        "| flows | through | rate |",
        "|--:|---|--:|",
        "| 1 | one |  |",
    ]


def test_a_column_that_holds_nothing_goes_with_its_name():
    kept = SHEET.without_empty_columns()

    assert (kept.head, kept.rows[2], kept.title) == (("flows", "through"), ("2", "one"), "Rates")


def test_rows_that_begin_alike_stand_together():
    rules = [line for line in shown(SHEET)[4:-1] if line.startswith("├")]
    (before,) = [number for number, line in enumerate(shown(SHEET)) if line.startswith("├")]

    assert len(rules) == 1
    assert "other" in shown(SHEET)[before - 1]


def test_what_is_not_grouped_has_no_rule_between_rows():
    assert not [line for line in shown(Sheet(title="", head=("a",), rows=[("1",), ("2",)])) if "├" in line]
