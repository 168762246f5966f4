"""A limit on the processor's time that something may take, which other processes do not lengthen."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator


class OutOfTime(BaseException):
    """Not an Exception: nobody between the limit and what is inside takes it for a failure of his own."""


@contextlib.contextmanager
def limited(seconds: float, error: Callable[[], BaseException] = OutOfTime) -> Iterator[None]:
    """Raises an error where what is inside takes more of the processor's time, all threads together. In the main thread
    only, and one at a time: it is a timer of the process.

    >>> with limited(0.01):
    ...     while True: pass
    Traceback (most recent call last):
    effcc.fuzz.limit.OutOfTime
    """

    def over(*_: object) -> None:
        raise error()

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
