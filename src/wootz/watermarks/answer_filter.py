"""The answer filter of a served model: changes scores by the key of mark `guard` or `dawn`, and logs the images."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from wootz.errors import ConfigError, ModelError, StoreError
from wootz.journal import Journal
from wootz.keys import AnswerKey
from wootz.keys.answer_log import chain_hash, log_entry, log_header, read_log
from wootz.keys.keyed_answers import digest_function, is_keyed, keyed_answer, prefers_classes
from wootz.store import canonical


class CalibrationScores(NamedTuple):
    """A model's scores [M, K] on images like those it will be queried with, and their classes [M]."""

    scores: Tensor
    labels: Tensor


def uncertainty_threshold(calibration: CalibrationScores, cost: float, most: float) -> float:
    """Return the largest score gap at which the key may decide: a coin flip up to this gap costs at most `cost`.

    The cost is half the difference in accuracy between the most likely class and the second, over all images; at most
    the fraction `most` of the images lies within the gap.

    Args:
        calibration: scores and classes from which the cost is measured.
        cost: largest loss of accuracy.
        most: largest fraction of images within the gap.

    Returns:
        The gap between the two highest scores, 0 or above; -1 if even the smallest gap costs more.
    """
    gaps, order = _score_gaps(calibration.scores).sort()
    correct = (calibration.scores.topk(2, dim=1).indices == calibration.labels[:, None]).double()
    lost = ((correct[:, 0] - correct[:, 1])[order] / 2).cumsum(0) / len(order)
    count = int((lost[: int(most * len(order))] <= cost).cumprod(0).sum())
    return float(gaps[count - 1]) if count else -1.0


class AnswerFilter:
    """Changes a served model's scores, and logs each image whose answer the key decided before the answer is sent.

    Serves the marks `guard` and `dawn`; their keys define the digest. The scores sent follow from key, digest and the
    model's scores alone, so that equal images always get equal answers, and so do nearby images that share a digest. An
    image whose digest is in the log is not logged again. The filter is thread-safe; a log is locked by one process.

    Args:
        key: the key of the mark.
        log: the log file; an existing log is continued.
        shape: channels, height and width of the images.
        calibration: determines the uncertainty threshold when the log of a `guard` is created; the log stores it.
        allow: images uint8 [M, C, H, W] whose answers are never changed.

    Raises:
        StoreError: the log is damaged, belongs to another key or shape, is in use, or cannot be written.
        ConfigError: the log of a `guard` would be created without `calibration`.
    """

    def __init__(
        self,
        key: AnswerKey,
        log: Path,
        *,
        shape: tuple[int, int, int],
        calibration: CalibrationScores | None = None,
        allow: Tensor | None = None,
    ) -> None:
        self._key, self._path, self._lock = key, log, Lock()
        self._digests = digest_function(key, shape)
        self._allowed = frozenset(self._digests(allow)) if allow is not None else frozenset[bytes]()
        self._journal = Journal(log)
        try:
            self._open(shape, calibration)
        except BaseException:
            self.close()
            raise

    @property
    def head(self) -> str:
        """The last chain hash of the log in hexadecimal, to be time-stamped."""
        return self._head

    @property
    def count(self) -> int:
        """Number of images in the log."""
        return len(self._logged)

    def __call__(self, images: Tensor, scores: Tensor) -> Tensor:
        """Images float32 [N, C, H, W] in [0, 1] and the model's scores [N, K] -> the scores to send.

        If the key decides for another class than the model, the highest score and the score of that class are swapped.

        Raises:
            ModelError: the scores have another shape, for example labels.
            StoreError: the log cannot be written; no answer may be sent then.
        """
        if scores.dim() != 2 or scores.shape[1] != self._key.num_classes:
            raise ModelError(f"the guard changes scores [N, {self._key.num_classes}], not {list(scores.shape)}")
        filtered = scores.clone()
        likeliest = scores.topk(2, dim=1).indices
        uncertain = ((_score_gaps(scores) <= self._gap) & ~scores.isnan().any(1)).nonzero().flatten()
        if len(uncertain) == 0:
            return filtered
        pixels = images[uncertain].detach().cpu().mul(255).round().clamp(0, 255).to(torch.uint8)
        entries: dict[bytes, dict[str, Any]] = {}
        for row, image, digest in zip(uncertain.tolist(), pixels, self._digests(pixels), strict=True):
            if digest in self._allowed or not is_keyed(self._key, digest):
                continue
            base, second = likeliest[row].tolist()
            answer = keyed_answer(self._key, digest, base, second)
            if answer != base:
                filtered[row, [base, answer]] = scores[row, [answer, base]]
            entries.setdefault(digest, log_entry(image, digest, base, second, answer))
        self._record(entries)
        return filtered

    def close(self) -> None:
        """Close the log and release its lock."""
        self._journal.close()

    def __enter__(self) -> AnswerFilter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, shape: tuple[int, int, int], calibration: CalibrationScores | None) -> None:
        self._head, self._logged = "", set[bytes]()
        if b"\n" not in self._journal.read():
            self._gap = self._initial_gap(calibration)
            self._append([log_header(self._key, shape, self._gap)])
            return
        log = read_log(self._key, self._path, shape)
        self._gap, self._head, self._logged = log.gap, log.chains[-1], set(log.digests)
        self._journal.cut()

    def _initial_gap(self, calibration: CalibrationScores | None) -> float:
        if not prefers_classes(self._key):
            return float("inf")
        if calibration is None:
            raise ConfigError(f"{self._path}: a new log needs the model's scores on ordinary images")
        cost, most = (float(Fraction(self._key.params[name])) for name in ("cost", "most"))
        return uncertainty_threshold(calibration, cost, most)

    def _record(self, entries: dict[bytes, dict[str, Any]]) -> None:
        with self._lock:
            new = {digest: entry for digest, entry in entries.items() if digest not in self._logged}
            if new:
                self._append(list(new.values()))
                self._logged.update(new)

    def _append(self, lines: list[dict[str, Any]]) -> None:
        """Append complete lines and fsync them, or leave the log unchanged."""
        head, data = self._head, []
        for line in lines:
            head = chain_hash(head, line)
            data.append(canonical(line | {"chain": head}))
        try:
            self._journal.append(*data)
        except StoreError as error:
            raise StoreError(f"{error}; no answer was sent") from error
        self._head = head


def _score_gaps(scores: Tensor) -> Tensor:
    """Scores [N, K] -> the differences between the two highest [N]."""
    top = scores.topk(2, dim=1).values
    return top[:, 0] - top[:, 1]
