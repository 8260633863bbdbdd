"""The thief's only way to the victim: every image that is asked counts as one query, within a declared budget."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wootz.attacks.extraction.access import check_access, complete, reveal
from wootz.errors import BudgetError, StoreError
from wootz.types import Predict

QUERY = np.dtype([("image", "V16"), ("label", "<i4")])
"""One recorded query: BLAKE2b-128 of the image's float32 bytes, and the top-1 answer."""


class Ledger:
    """A `Predict` that counts, records, refuses beyond the budget, and shows no more than its access allows.

    It takes whatever answers: a model on this machine or an endpoint far away.

    Args:
        predict: the victim.
        access: `label`, `scores`, `top-K` or `rounded-D`, see `reveal`.
        num_classes: how many classes the victim knows, which thieves learn from its documentation.
        budget: queries allowed; None allows any number.
        log: file that every query is appended to, 20 bytes each (`QUERY`). A file that is there already is
            continued: what an earlier process asked stays asked.

    Raises:
        ConfigError: no such access.
        StoreError: the log is no log of queries.
    """

    def __init__(
        self, predict: Predict, *, access: str, num_classes: int, budget: int | None = None, log: Path | None = None
    ) -> None:
        check_access(access)
        self._predict, self._log = predict, log
        self.access, self.num_classes, self.budget = access, num_classes, budget
        self.queries = len(read_queries(log)) if log and log.exists() else 0

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> probabilities [N, K] or labels [N]; costs N queries.

        Raises:
            BudgetError: these N would exceed the budget; nothing is asked.
        """
        self.require(len(x))
        answers = reveal(self._predict(x), self.access)
        self.queries += len(x)
        if self._log:
            self._record(x, answers)
        return answers

    def require(self, count: int) -> None:
        """Raise BudgetError unless `count` more queries fit the budget; asks nothing."""
        if self.budget is not None and self.queries + count > self.budget:
            raise BudgetError(
                f"budget = {self.budget} queries: {self.queries} are spent and this attack needs {count} more; "
                f"it fits a budget of {self.queries + count}"
            )

    def ask(self, x: Tensor, batch_size: int = 1000) -> Tensor:
        """Ask every image once, in batches; refuse before the first one if the budget can not hold them all."""
        self.require(len(x))
        return torch.cat([self(batch) for batch in x.split(batch_size)])

    def distributions(self, x: Tensor, batch_size: int = 1000) -> Tensor:
        """Ask, and return whole distributions float32 [N, K] as far as the access lets one know them."""
        return complete(self.ask(x, batch_size), self.num_classes)

    def _record(self, x: Tensor, answers: Tensor) -> None:
        rows = np.empty(len(x), QUERY)
        for row, image in enumerate(x.detach().cpu().float().contiguous().numpy()):
            rows["image"][row] = np.void(hashlib.blake2b(image.tobytes(), digest_size=16).digest())
        rows["label"] = (answers if answers.dim() == 1 else answers.argmax(1)).cpu().numpy()
        assert self._log is not None
        try:
            with self._log.open("ab") as file:
                file.write(rows.tobytes())
        except OSError as error:
            raise StoreError(f"{self._log}: a query could not be recorded ({error.strerror})") from error


def read_queries(log: Path) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Read a log of queries: one row of `QUERY` each.

    Raises:
        StoreError: the file can not be read, or ends within a query.
    """
    try:
        data = log.read_bytes()
    except OSError as error:
        raise StoreError(f"{log}: can not be read ({error.strerror})") from error
    if len(data) % QUERY.itemsize:
        raise StoreError(f"{log}: {len(data)} bytes; a log of queries has a multiple of {QUERY.itemsize}")
    return np.frombuffer(data, QUERY)
