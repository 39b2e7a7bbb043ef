"""What commands print on stdout: one JSON document, or text for people."""

import json
import sys
from collections.abc import Iterable, Sequence


def print_json(document: object) -> None:
    """Prints one document."""
    print_text(json.dumps(document, indent=2, ensure_ascii=False))


def print_text(text: str) -> None:
    """Prints text, whatever characters stdout can show."""
    try:
        print(text)
    except UnicodeEncodeError:
        print(text.encode("ascii", "backslashreplace").decode())


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints rows under a head: a table on a terminal, aligned columns elsewhere."""
    if sys.stdout.isatty():
        _print_rich(head, rows)
        return
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[number]) for line in lines) for number in range(len(head))]
    for line in lines:
        print_text("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_rich(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
