"""The reference executor: a program's tasks one at a time, in a random order that the DAG allows.

Any such order must give the same bits as the barrier schedule. Each task gets scratch full of NaNs.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from effcc.backends.tvm.runtime.arrays import aligned_memory
from effcc.backends.tvm.runtime.executable import Context, Executable

_KERNEL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_COPY = -1


def run(executable: Executable, inputs: Sequence[Any], seed: int = 0) -> tuple[Any, ...]:
    """The results of a program without barriers for one random legal order of its tasks."""
    (section,) = executable.layout.sections
    order = legal_order(section.starts, section.children, section.counts, random.Random(seed))

    def step(context: Context) -> int:
        table, launches = context.table, _gathered(section.gather.tolist(), context.table)
        scratch = aligned_memory(max(64, context.binding.scratch if context.binding else 0))
        for task in order:
            launch, first, end, _ = section.records[task].tolist()
            if launch < 0:
                continue
            slot, arguments = launches[launch]
            if slot == _COPY:
                ctypes.memmove(int(arguments[0]), int(arguments[1]), int(arguments[2]))
                continue
            scratch[:] = 0xFF
            at = scratch.__array_interface__["data"][0]
            code = _KERNEL(table[slot])(arguments.__array_interface__["data"][0], at, first, end)
            if code:
                return code
        return 0

    return executable.stepped(step, inputs)


def legal_order(starts: Any, children: Any, counts: Any, draw: random.Random) -> list[int]:
    """All tasks in a random order in which none comes before one that it waits for."""
    left = counts.tolist()
    ready = [k for k, n in enumerate(left) if n == 0]
    order = []
    while ready:
        at = draw.choice((draw.randrange(len(ready)), len(ready) - 1, 0))  # wide, deep, or as they came
        task = ready.pop(at)
        order.append(task)
        for child in children[starts[task] : starts[task + 1]].tolist():
            left[child] -= 1
            if left[child] == 0:
                ready.append(child)
    assert len(order) == len(left), "the tasks wait for each other"
    return order


def _gathered(words: list[int], table: Any) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """(kernel's slot, arguments) of each launch."""
    out, at = [], 0
    while at < len(words):
        slot, count = words[at : at + 2]
        out.append((slot, np.array([table[k] for k in words[at + 2 : at + 2 + count]], np.int64)))
        at += 2 + count
    return out
