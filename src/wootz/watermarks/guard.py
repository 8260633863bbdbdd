"""Mark `guard`: where a served model is unsure, a key decides between its two likeliest classes.

A thief who learns the answers learns the key's choices, from labels alone too. The idea is DAWN's (arXiv 1906.00830).
Ours differs in what is decided: answers that the model is unsure of, which a thief learns far more readily and which
are often wrong anyway, so that many cost little; by a fair coin each, so that answers which stay say as much as those
which change; and in the test, which is exact.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wootz import checks
from wootz.data import Dataset
from wootz.errors import ConfigError, ModelError, StoreError
from wootz.keys import AnswerKey, Key, RegisteredMaterial
from wootz.keys.answers import chained, chosen, digester, first_line, keyed_class, later_line, orders, read_log
from wootz.store import canonical, read_bytes
from wootz.training import Hook
from wootz.watermarks.context import MarkContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """How many answers the key decides, and what counts as the same image.

    Attributes:
        cost: clean accuracy given away for it, at most, as measured on probe images: the answers with the smallest
            gap between the two highest scores are decided, as many as that allows.
        most: share of all answers that are decided, at most.
        grid: an image is summed up in grid x grid cells, per channel.
        projections: sums with keyed signs that make a digest.
        step: width of a sum's step, in gray levels times the root of the number of values in an image. Wider steps
            keep a digest through more noise, and let more images share one.
        margin: gray levels next to black and to white that count as one, so that noise there moves nothing.
    """

    cost: float = 0.005
    most: float = 0.2
    grid: int = 7
    projections: int = 64
    step: int = 1200
    margin: int = 16

    def __post_init__(self) -> None:
        checks.inside(0, 0.5, cost=self.cost)
        checks.inside(0, 1, most=self.most)
        checks.at_least(1, grid=self.grid, projections=self.projections, step=self.step)
        checks.within(0, 100, margin=self.margin)


def prepare(cfg: Guard, context: MarkContext, generator: torch.Generator) -> RegisteredMaterial:
    """Fix what is public of the guard; nothing of it depends on images or models."""
    params = {
        "rule": "order",
        "cost": str(Fraction(str(cfg.cost))),
        "most": str(Fraction(str(cfg.most))),
        "grid": cfg.grid,
        "projections": cfg.projections,
        "step": cfg.step,
        "margin": cfg.margin,
    }
    return RegisteredMaterial("answers", {}, params)


def train_hook(cfg: Any, key: Key, data: Dataset, *, seed: int) -> Hook:
    """Return an empty hook: a mark of this kind is in the answers, not in the weights."""
    return Hook()


class CalibrationScores(NamedTuple):
    """A model's scores [M, K] on images such as it will be asked, and their classes [M]."""

    scores: Tensor
    labels: Tensor


def uncertainty_threshold(ordinary: CalibrationScores, cost: float, most: float) -> float:
    """Return the gap between the two highest scores up to which tossing a coin costs at most `cost`, from 0 on.

    The cost is half of how much oftener the first class is right than the second, over all images, of which at most the
    share `most` lies within the gap. Below all gaps where even the least costs more.
    """
    gaps, order = _gaps(ordinary.scores).sort()
    right = (ordinary.scores.topk(2, dim=1).indices == ordinary.labels[:, None]).double()
    lost = ((right[:, 0] - right[:, 1])[order] / 2).cumsum(0) / len(order)
    count = int((lost[: int(most * len(order))] <= cost).cumprod(0).sum())
    return float(gaps[count - 1]) if count else -1.0


class AnswerFilter:
    """Changes a served model's scores, and logs each image that the key decides before its answer leaves.

    Serves the marks `guard` and `dawn`, whose keys say what a digest is. Equal images always get equal answers, and so
    do nearby ones, as far as their digests go: what is shown follows from key, digest and the model's scores alone. An
    image whose digest is in the log already is not logged again.
    Safe to call from several threads; one process at a time holds a log.

    Args:
        key: of the mark.
        log: the file; one that is there already is continued.
        shape: channels, height, width of the images.
        ordinary: fixes, when the log of a `guard` is begun, the gap between the two highest scores that counts as
            unsure; a log that is continued has it.
        allow: images uint8 [M, C, H, W] that are always answered as the model does.

    Raises:
        StoreError: the log is damaged, another key's or shape's, in use, or can not be written.
        ConfigError: a log is to be begun without `ordinary`.
    """

    def __init__(
        self,
        key: AnswerKey,
        log: Path,
        *,
        shape: tuple[int, int, int],
        ordinary: CalibrationScores | None = None,
        allow: Tensor | None = None,
    ) -> None:
        self._key, self._path, self._lock = key, log, Lock()
        self._digests = digester(key, shape)
        self._allowed = frozenset(self._digests(allow)) if allow is not None else frozenset[bytes]()
        self._file = _held(log)
        try:
            self._open(shape, ordinary)
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> str:
        """The last chain hash, in hexadecimal: what to have time-stamped."""
        return self._head

    @property
    def count(self) -> int:
        """How many images the log holds."""
        return len(self._known)

    def __call__(self, images: Tensor, scores: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [0, 1] and the model's scores [N, K] -> the scores to show.

        Where the key shows another class than the model, the highest score and that class's are swapped.

        Raises:
            ModelError: labels instead of scores.
            StoreError: the log can not be written; nothing may be answered then.
        """
        if scores.dim() != 2 or scores.shape[1] != self._key.num_classes:
            raise ModelError(f"the guard changes scores [N, {self._key.num_classes}], not {list(scores.shape)}")
        shown = scores.clone()
        likeliest = scores.topk(2, dim=1).indices
        unsure = ((_gaps(scores) <= self._gap) & ~scores.isnan().any(1)).nonzero().flatten()
        if len(unsure) == 0:
            return shown
        pixels = images[unsure].detach().cpu().mul(255).round().clamp(0, 255).to(torch.uint8)
        fresh: dict[bytes, dict[str, Any]] = {}
        for row, image, digest in zip(unsure.tolist(), pixels, self._digests(pixels), strict=True):
            if digest in self._allowed or not chosen(self._key, digest):
                continue
            base, second = likeliest[row].tolist()
            answer = keyed_class(self._key, digest, base, second)
            if answer != base:
                shown[row, [base, answer]] = scores[row, [answer, base]]
            fresh.setdefault(digest, later_line(image, digest, base, second, answer))
        self._record(fresh)
        return shown

    def close(self) -> None:
        """Let go of the log."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> AnswerFilter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, shape: tuple[int, int, int], ordinary: CalibrationScores | None) -> None:
        self._head, self._known, self._size = "", set[bytes](), 0
        if b"\n" not in read_bytes(self._path):
            os.ftruncate(self._file, 0)
            if ordinary is None and orders(self._key):
                raise ConfigError(f"{self._path}: a new log needs the model's scores on ordinary images")
            self._gap = float("inf")
            if ordinary is not None and orders(self._key):
                cost, most = (float(Fraction(self._key.params[name])) for name in ("cost", "most"))
                self._gap = uncertainty_threshold(ordinary, cost, most)
            self._append([first_line(self._key, shape, self._gap)])
            return
        log = read_log(self._key, self._path)
        if log.shape != shape:
            raise StoreError(f"{self._path}: is of images {list(log.shape)}, not {list(shape)}")
        self._gap, self._head, self._known, self._size = log.gap, log.chains[-1], set(log.digests), log.size
        os.ftruncate(self._file, self._size)

    def _record(self, fresh: dict[bytes, dict[str, Any]]) -> None:
        with self._lock:
            news = {digest: line for digest, line in fresh.items() if digest not in self._known}
            if news:
                self._append(list(news.values()))
                self._known.update(news)

    def _append(self, lines: list[dict[str, Any]]) -> None:
        """Write whole lines and fsync them, or leave the log as it was."""
        head, data = self._head, b""
        for line in lines:
            head = chained(head, line)
            data += canonical(line | {"chain": head}) + b"\n"
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise StoreError(f"{self._path}: can not be written ({error.strerror}); nothing was answered") from error
        self._head, self._size = head, self._size + len(data)


def _gaps(scores: Tensor) -> Tensor:
    top = scores.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def _held(log: Path) -> int:
    """Open a log for this process alone."""
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except OSError as error:
        raise StoreError(f"{log}: can not be opened ({error.strerror})") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise StoreError(f"{log}: another service writes it; each needs a log of its own") from error
    return file
