"""What commands print: tables and text on stdout, progress on stderr, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def console() -> Any:
    """Stdout for people. Without a terminal lines are as long as they want to be."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 160)


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()) -> None:
    """A table under a title; the columns in `right` hold numbers."""
    from rich.markup import escape
    from rich.table import Table

    made = Table()
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(str(cell)) for cell in row))
    if title:
        print(title)
    console().print(made)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A line on stderr that says what is being done, while it is being done; nothing where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda message: None
        return
    from rich.console import Console
    from rich.status import Status

    with Status("", console=Console(stderr=True)) as status:
        yield lambda message: status.update(message)
