"""A call's memory for the sections of tiles in its program (runtime/tiles.ll): counts, tickets, arguments, a trace."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..entry import Section, SectionWord
from .arrays import aligned_memory


@dataclass(frozen=True)
class Ran:
    """A task that ran: of which launch, its tiles [first, end), when (nanoseconds of the monotonic clock), and on which
    thread of the call (0 is the caller)."""

    label: str
    launch: int
    first: int
    end: int
    began: int
    ended: int
    thread: int


class SectionMemory:
    """What the driver reads and writes for one section during one call at a time."""

    def __init__(self, section: Section):
        self.section = section
        tasks, launches = len(section.counts), len(section.labels)
        self._words = aligned_memory(8 * SectionWord.end).view(np.int64)
        self._words[:] = 0
        self.address: int = address_of(self._words)
        roots = np.flatnonzero(section.counts == 0).astype(np.int32) + 1  # tickets hold 1 more than the task's number
        changing = {
            SectionWord.table: np.zeros(2 * launches, np.int64),
            SectionWord.arguments: np.zeros(section.arguments, np.int64),
            SectionWord.counts: np.zeros(tasks, np.int32),
            SectionWord.ready: np.zeros(tasks, np.int32),
        }
        fixed = {
            SectionWord.gather: section.gather,
            SectionWord.records: section.records,
            SectionWord.starts: section.starts,
            SectionWord.children: section.children,
            SectionWord.initial: section.counts,
            SectionWord.roots: roots,
        }
        self.arrays = {**changing, **fixed}
        for word, array in self.arrays.items():
            self._words[word] = address_of(array)
        self._words[SectionWord.tasks] = tasks
        self._words[SectionWord.launches] = launches
        self._words[SectionWord.root_count] = len(roots)
        self._words[SectionWord.sinks] = np.count_nonzero(np.diff(section.starts) == 0)
        self._times: np.ndarray | None = None

    @property
    def failed(self) -> str:
        """The label of the launch that failed."""
        return self.section.labels[int(self._words[SectionWord.failed])]

    def trace(self, on: bool) -> None:
        """Whether the driver notes when and where each task runs, from the next run on."""
        self._times = np.full((len(self.section.counts), 3), -1, np.int64) if on else None
        self._words[SectionWord.trace] = 0 if self._times is None else address_of(self._times)

    def ran(self) -> list[Ran]:
        """The tasks of the last run that was traced, joins left out, by their beginnings."""
        assert self._times is not None
        out = []
        for (launch, first, end, _), (began, ended, thread) in zip(
            self.section.records.tolist(), self._times.tolist(), strict=True
        ):
            if launch >= 0 and thread >= 0:
                out.append(Ran(self.section.labels[launch], launch, first, end, began, ended, thread))
        return sorted(out, key=lambda r: r.began)


def address_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
