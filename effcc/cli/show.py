"""What commands print: tables and text on stdout, progress on stderr, JSON where it is asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from effcc.roofline import Profile


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


def print_launches(profile: Profile) -> None:
    """The table of launches, in order: their times, what work they did in them, and how near the machine's peaks."""
    from effcc.report import count

    def share(x: float | None) -> str:
        return "" if x is None else f"{100 * x:.0f} %"

    whole = sum(launch.seconds for launch in profile.launches) or 1.0
    rows = [
        (x.label, x.template, f"{1e6 * x.seconds:.1f}", f"{100 * x.seconds / whole:.1f}",
         f"{count(x.flops / x.seconds)}flop/s" if x.flops is not None and x.seconds else "",
         share(x.of_peak), share(x.of_bandwidth))
        for x in profile.launches
    ]  # fmt: skip
    numbers = ("us", "%", "rate", "of peak", "of bandwidth")
    peaks = ""
    if profile.peak and profile.bandwidth:
        peaks = f" (the machine's peaks: {count(profile.peak)}flop/s, {count(profile.bandwidth)}B/s)"
    print_table(f"launches{peaks}", ("ops", "template", *numbers), rows, right=numbers)


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
