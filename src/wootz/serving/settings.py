"""What a service says of its model, and what a stranger may ask of it."""

from __future__ import annotations

from dataclasses import dataclass

from wootz import checks
from wootz.types import AnswerAccess


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """What is told about the model.

    Attributes:
        name: it is served under.
        shape: channels, height, width of the images it takes.
        classes: their names, in the order of the scores.
        data: name of the data set it was trained on; empty says nothing of it.
        set_aside: how those data were divided, see `wootz.data.split_dataset`; None says nothing of it.
        eps: the budget it was trained against; None says nothing of it.
        access: what an answer shows: scores and label, or the label alone.
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    data: str = ""
    set_aside: float | None = None
    eps: float | None = None
    access: AnswerAccess = "scores"

    def __post_init__(self) -> None:
        checks.one_of(("scores", "label"), access=self.access)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much a service takes.

    Attributes:
        max_bytes: of the body of one request.
        batch: images that the model is asked about at once.
        waiting: images that may wait for the model; while so many do, more are sent away (503).
        read_seconds: until the body of a request must have arrived.
    """

    max_bytes: int = 16 * 2**20
    batch: int = 256
    waiting: int = 1024
    read_seconds: float = 30.0

    def __post_init__(self) -> None:
        checks.at_least(1, max_bytes=self.max_bytes, batch=self.batch, waiting=self.waiting)
        checks.positive(read_seconds=self.read_seconds)
