"""How long a grid will still take, from how long its jobs took so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from wootz.bench.job import Job


class Estimate:
    """Counts jobs by label; one not seen yet is taken to last as long as the mean job of its kind, or else of all."""

    def __init__(self, jobs: Iterable[Job], workers: int) -> None:
        self._left = Counter((job.kind, job.label) for job in jobs)
        self._total, self._workers = self._left.total(), workers
        self._seconds: Counter[tuple[str, str]] = Counter()
        self._ended: Counter[tuple[str, str]] = Counter()

    def end(self, job: Job, seconds: float) -> None:
        """Note that a job ended, after so many seconds."""
        name = (job.kind, job.label)
        self._left[name] -= 1
        self._ended[name] += 1
        self._seconds[name] += seconds  # type: ignore[assignment]

    @property
    def work(self) -> float:
        """Seconds that all jobs took together."""
        return float(sum(self._seconds.values()))

    @property
    def done(self) -> float:
        """The share of jobs that have ended."""
        return 1 - self._left.total() / max(1, self._total)

    @property
    def left(self) -> float | None:
        """Seconds of wall time that are left, with all workers busy; None before any job has ended."""
        if not self._ended.total():
            return None
        return sum(count * self._mean(name) for name, count in self._left.items() if count) / self._workers

    @property
    def words(self) -> str:
        """Progress for people."""
        ended, left = self._ended.total(), self.left
        told = "" if left is None else f", about {max(1, round(left / 60))} min left"
        return f"job {ended} of {self._total}{told}"

    def _mean(self, name: tuple[str, str]) -> float:
        alike = [n for n in self._ended if n == name] or [n for n in self._ended if n[0] == name[0]] or [*self._ended]
        return sum(self._seconds[n] for n in alike) / sum(self._ended[n] for n in alike)
