"""Processor time and memory of a process and of those it has started."""

from collections.abc import Iterator
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Meter:
    """Of one process and all that descend from it."""

    process_id: int

    def cpu_seconds(self) -> float:
        """Used so far, by those that have ended too: the kernel adds their time to their parent's."""
        return sum(sum(process.cpu_times()[:4]) for process in self._processes())

    def memory_bytes(self) -> int:
        """Resident. Meaningless for PostgreSQL, whose processes share most of it."""
        return sum(process.memory_info().rss for process in self._processes())

    def _processes(self) -> Iterator[psutil.Process]:
        process = psutil.Process(self.process_id)
        yield process
        yield from process.children(recursive=True)
