"""A tile graph as text, the same for the same graph: a line for each launch, then its tasks and what they wait for.

    tiles: 2 launches, 8 tasks, 1 join, 9 edges
    0 contraction matmul+relu   4 tasks of 8 tiles
      0 [0:2)
      1 [2:4)
      ...
    join 4 <- 0..3
    1 rows softmax   4 tasks of 4 tiles
      5 [0:1) <- 4
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from effcc.backends.tvm.plan import Launch
from effcc.backends.tvm.tiles.graph import TileGraph


def text(graph: TileGraph) -> str:
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: TileGraph) -> Iterator[str]:
    yield (
        f"tiles: {_count(len(graph.steps), 'launch', 'launches')}, {_count(graph.tasks - graph.joins, 'task')}, "
        f"{_count(graph.joins, 'join')}, {_count(graph.edges, 'edge')}"
    )
    starts, parents = graph.parents
    told = -1
    for task in range(graph.tasks):
        launch = int(graph.launch[task])
        waits = _runs(np.sort(parents[starts[task] : starts[task + 1]]).tolist())
        after = f" <- {waits}" if waits else ""
        if launch < 0:
            yield f"join {task}{after}"
            continue
        if launch != told:
            told = launch
            step = graph.steps[launch]
            tasks = _count(len(graph.of(launch)), "task")
            if isinstance(step, Launch):
                yield f"{launch} {step.kernel.template} {step.label}   {tasks} of {_count(int(step.tiles), 'tile')}"  # type: ignore
            else:
                yield f"{launch} copy   {tasks}"
        yield f"  {task} [{graph.begin[task]}:{graph.end[task]}){after}"


def _count(n: int, one: str, many: str = "") -> str:
    """
    >>> _count(1, "launch", "launches"), _count(3, "task")
    ('1 launch', '3 tasks')
    """
    return f"{n} {one if n == 1 else many or one + 's'}"


def _runs(numbers: list[int]) -> str:
    """
    >>> _runs([3, 4, 5, 9, 11, 12])
    '3..5 9 11..12'
    """
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], n]
        else:
            runs.append([n])
    return " ".join("..".join(map(str, run)) for run in runs)
