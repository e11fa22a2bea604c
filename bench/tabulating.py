"""Tables, on the terminal or in Markdown, made of the same cells."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs
from rich.console import Console
from rich.table import Table

Row = tuple[str, ...]


@attrs.frozen(kw_only=True)
class Sheet:
    """What a table shows.

    Args:
        title: Above it.
        head: Names of the columns.
        rows: Each with as many cells as the head.
        text: Names of the columns that hold text; the others hold numbers.
        grouped_by: How many leading cells rows must share to stand together on the terminal; 0: all do.
    """

    title: str
    head: Row
    rows: Sequence[Row]
    text: frozenset[str] = frozenset()
    grouped_by: int = 0

    def without_empty_columns(self) -> Sheet:
        """Return it without the columns that hold nothing."""
        filled = [number for number in range(len(self.head)) if any(row[number] for row in self.rows)]
        head, *rows = [tuple(row[number] for number in filled) for row in (self.head, *self.rows)]
        return attrs.evolve(self, head=head, rows=rows)


def rich_table(sheet: Sheet) -> Table:
    """Return it for a terminal."""
    table = Table(title=sheet.title, title_justify="left")
    for name in sheet.head:
        table.add_column(name, justify="left" if name in sheet.text else "right")
    by = sheet.grouped_by
    for row, coming in itertools.zip_longest(sheet.rows, sheet.rows[1:]):
        table.add_row(*row, end_section=coming is not None and coming[:by] != row[:by])
    return table


def show(sheets: Sequence[Sheet], remarks: Sequence[str], width: int) -> None:
    """Print tables, and what a reader must know about them; ``width`` columns wide where no terminal says."""
    output = Console()
    if not output.is_terminal:
        output = Console(width=width)
    for sheet in sheets:
        output.print(rich_table(sheet))
    for remark in remarks:
        output.print(remark, highlight=False)


def markdown(sheets: Sequence[Sheet]) -> str:
    """Return tables as Markdown, each under its heading."""
    return "\n\n".join(_markdown(sheet) for sheet in sheets)


def _markdown(sheet: Sheet) -> str:
    head, *rows = ["| " + " | ".join(row) + " |" for row in (sheet.head, *sheet.rows)]
    rule = "|" + "|".join("---" if name in sheet.text else "--:" for name in sheet.head) + "|"
    return "\n".join([f"## {sheet.title}", "", head, rule, *rows])
