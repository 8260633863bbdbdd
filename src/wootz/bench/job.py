"""A piece of work that may run anywhere, named by the digest of all that decides its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

from wootz.config import digest

PROTOCOL = "wootz-bench/1"

JobKind: TypeAlias = Literal["panel", "train", "attack", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One piece of work. Plain data: it crosses to other processes and machines.

    Attributes:
        kind: `panel`, `train` and `attack` make models, each in a folder of its own; `test` makes a cell of the grid.
        config: all that decides the result, as plain values; other jobs in it by digest.
        needs: digests of the jobs that must be done before.
        label: for people; jobs of one label take about as long.
        digest: 32 hexadecimal digits: the same config, the same job.
    """

    kind: JobKind
    config: dict[str, Any]
    needs: tuple[str, ...] = ()
    label: str = field(compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        name = digest({"protocol": PROTOCOL, "kind": self.kind, "config": self.config})[:32]
        object.__setattr__(self, "digest", name)


class Outcome(NamedTuple):
    """How a job ended.

    Attributes:
        job: its digest.
        cell: of a `test` that went well, as plain JSON.
        seconds: that it took, 0 where its result was there already.
        error: one line saying why it failed; None where it went well.
    """

    job: str
    cell: dict[str, Any] | None
    seconds: float
    error: str | None = None
