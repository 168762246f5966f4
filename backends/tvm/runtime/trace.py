"""A run's tasks as a timeline that Perfetto and Chrome open: a row for each thread, a slice for each task.

The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU (complete events, "ph": "X",
times in microseconds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .sections import Ran


def events(sections: Sequence[Sequence[Ran]], name: str = "effcc") -> dict[str, Any]:
    """The timeline as JSON; time 0 is the first task's beginning."""
    ran = [task for section in sections for task in section]
    origin = min((task.began for task in ran), default=0)
    threads = sorted({task.thread for task in ran})
    rows = [_named("process_name", 0, name)] + [
        _named("thread_name", thread, "caller" if thread == 0 else f"worker {thread}") for thread in threads
    ]
    slices = [
        {
            "name": task.label,
            "ph": "X",
            "pid": 0,
            "tid": task.thread,
            "ts": (task.began - origin) / 1e3,
            "dur": (task.ended - task.began) / 1e3,
            "args": {"launch": task.launch, "tiles": f"{task.first}..{task.end - 1}"},
        }
        for task in ran
    ]
    return {"traceEvents": [*rows, *slices], "displayTimeUnit": "ns"}


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": 0, "tid": thread, "args": {"name": name}}
