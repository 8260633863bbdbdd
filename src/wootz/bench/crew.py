"""Who does jobs: anything that takes them and says which one ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from wootz import checks
from wootz.bench.job import Job, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Staffing:
    """How many work.

    Attributes:
        workers: jobs done at the same time.
        threads: of each job.
        tries: how often a job is begun whose worker dies; then it counts as failed.
    """

    workers: int
    threads: int = 1
    tries: int = 5

    def __post_init__(self) -> None:
        checks.at_least(1, workers=self.workers, threads=self.threads, tries=self.tries)


class Crew(Protocol):
    """Whoever does jobs."""

    def submit(self, job: Job) -> None:
        """Take a job; it may wait."""
        ...

    def finished(self) -> Outcome:
        """Wait for the next job that ends. Every job that was submitted ends once."""
        ...
