"""The attacker's only access to the victim: queries, each one counted, within a declared budget.

An access level limits what an answer reveals: all probabilities, the top few, rounded ones, or the label alone.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wootz.attacks.context import AttackContext, State, checkpointed_loop
from wootz.errors import BudgetError, ConfigError
from wootz.journal import append_rows
from wootz.store import read_bytes
from wootz.types import Predict

QUERY = np.dtype([("image", "V16"), ("label", "<i4")])
"""One logged query: BLAKE2b-128 of the image's float32 bytes, and the top-1 answer."""

_ACCESS = re.compile(r"label|scores|top-([1-9]\d?)|rounded-(\d)")
_BATCH = 1000


class BudgetedOracle:
    """A `Predict` that counts and logs queries, refuses those beyond the budget, and limits what answers reveal.

    Args:
        predict: the victim, a local model or a remote endpoint.
        access: `label`, `scores`, `top-K` or `rounded-D`, see `limit_answers`.
        num_classes: the number of the victim's classes, which its documentation states.
        budget: the number of queries allowed; None allows any number.
        log: the file to which every query is appended, 20 bytes each (`QUERY`). The queries in an existing file count
            as spent.

    Raises:
        ConfigError: there is no such access level.
        StoreError: the log cannot be read.
    """

    def __init__(
        self, predict: Predict, *, access: str, num_classes: int, budget: int | None = None, log: Path | None = None
    ) -> None:
        if not _ACCESS.fullmatch(access):
            raise ConfigError(
                f"access = {access!r}: must be label, scores, top-K (top-3) or rounded-D (rounded-2 digits)"
            )
        self._predict, self._log = predict, log
        self.access, self.num_classes, self.budget = access, num_classes, budget
        self.queries = len(read_queries(log)) if log and log.exists() else 0

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> probabilities [N, K] or labels [N]; costs N queries.

        Raises:
            BudgetError: the N queries would exceed the budget; none is sent.
        """
        self.require(len(x))
        answers = limit_answers(self._predict(x), self.access)
        self.queries += len(x)
        if self._log:
            self._record(x, answers)
        return answers

    def require(self, count: int) -> None:
        """Raise BudgetError unless `count` more queries fit the budget; sends no query."""
        if self.budget is not None and self.queries + count > self.budget:
            raise BudgetError(
                f"budget = {self.budget} queries: {self.queries} are spent and this attack needs {count} more; "
                f"it fits a budget of {self.queries + count}"
            )

    def query(self, x: Tensor, batch_size: int = _BATCH) -> Tensor:
        """Query every image once, in batches; sends no query if the budget cannot hold all of them."""
        self.require(len(x))
        return torch.cat([self(batch) for batch in x.split(batch_size)])

    def probabilities(self, x: Tensor, batch_size: int = _BATCH) -> Tensor:
        """Query every image once and return complete distributions float32 [N, K], see `complete_answers`."""
        return complete_answers(self.query(x, batch_size), self.num_classes)

    def _record(self, x: Tensor, answers: Tensor) -> None:
        rows = np.empty(len(x), QUERY)
        for row, image in enumerate(x.detach().cpu().float().contiguous().numpy()):
            rows["image"][row] = np.void(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        rows["label"] = (answers if answers.dim() == 1 else answers.argmax(1)).cpu().numpy()
        assert self._log is not None
        append_rows(self._log, rows.tobytes(), QUERY.itemsize)


def query_all(
    victim: BudgetedOracle, pixels: Tensor, context: AttackContext, name: str = "answers", need: int | None = None
) -> Tensor:
    """Query images uint8 [N, C, H, W] and return complete distributions float32 [N, K]; costs N queries.

    An attack that is interrupted does not repeat queries: answers are saved in batches.

    Args:
        victim: the oracle to query.
        pixels: the images; they are sent as floats in [0, 1].
        context: the attacker's context, whose folder holds the answers.
        name: the name of this set of queries within the attack.
        need: the number of queries that must fit the budget before the first one is sent; None means N.

    Raises:
        BudgetError: the budget is too small; no query is sent.
    """

    def query_batch(number: int, state: State) -> State:
        if number == 0:
            victim.require(len(pixels) if need is None else need)
        batch = pixels[number * _BATCH : (number + 1) * _BATCH]
        return {"answers": torch.cat([state["answers"], victim.probabilities(batch.float().div_(255))])}

    def start() -> State:
        return {"answers": torch.empty(0, victim.num_classes)}

    return checkpointed_loop(context, name, -(-len(pixels) // _BATCH), start, query_batch)["answers"]


def require_scores(victim: BudgetedOracle, subject: str) -> None:
    """Raise BudgetError, with a message that begins with `subject`, if the victim returns labels only."""
    if victim.access == "label":
        raise BudgetError(f"{subject}: needs scores, but the victim returns labels only")


def limit_answers(answers: Tensor, access: str) -> Tensor:
    """Reduce a victim's answers to what an access level reveals.

    Args:
        answers: logits, log-probabilities or probabilities [N, K], or labels int64 [N].
        access: `scores` reveals all probabilities; `top-K` those of the K most probable classes, and 0 for the others;
            `rounded-D` probabilities rounded to D decimal digits; `label` the top-1 class alone.

    Returns:
        Probabilities float32 [N, K], or labels int64 [N].

    Raises:
        BudgetError: the answers are labels, and the access level needs scores.
    """
    if answers.dim() == 1:
        if access != "label":
            raise BudgetError(f"access = {access!r}: the victim returns labels only")
        return answers.long()
    if access == "label":
        return answers.argmax(1)
    probabilities = answers if _sums_to_one(answers) else answers.float().softmax(1)
    kind, _, number = access.partition("-")
    if kind == "top":
        top = probabilities.topk(min(int(number), probabilities.shape[1]), dim=1)
        return torch.zeros_like(probabilities).scatter_(1, top.indices, top.values)
    return probabilities.round(decimals=int(number)) if kind == "rounded" else probabilities


def complete_answers(answers: Tensor, num_classes: int) -> Tensor:
    """Return complete distributions float32 [N, K] from limited answers.

    Labels become one-hot vectors. The mass that is missing is spread evenly over the classes without any, and the
    excess that rounding added is normalized away.

    Args:
        answers: probabilities [N, K] with zeros for hidden classes, or labels int64 [N].
        num_classes: K.
    """
    if answers.dim() == 1:
        return F.one_hot(answers, num_classes).float()
    hidden = answers <= 0
    missing = (1 - answers.sum(1, keepdim=True)).clamp_min(0)
    completed = answers + hidden * missing / hidden.sum(1, keepdim=True).clamp_min(1)
    return completed / completed.sum(1, keepdim=True).clamp_min(1e-12)


def _sums_to_one(answers: Tensor) -> bool:
    sums = answers.sum(1)
    return bool(answers.min() >= 0) and torch.allclose(sums, torch.ones_like(sums), atol=1e-3)


def read_queries(log: Path) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Read a query log: one row of `QUERY` per query. An unfinished last row, which a kill left, is left out.

    Raises:
        StoreError: the file cannot be read.
    """
    data = read_bytes(log)
    return np.frombuffer(data[: len(data) // QUERY.itemsize * QUERY.itemsize], QUERY)
