"""The thief's only way to the victim: every image that is asked counts as one query, within a declared budget."""

from __future__ import annotations

import torch
from torch import Tensor

from wootz.errors import BudgetError
from wootz.types import Access, Predict


class Ledger:
    """A `Predict` that counts, refuses beyond the budget, and shows no more than its access allows.

    Args:
        predict: the victim.
        access: `scores` passes scores on, `label` top-1 labels only.
        budget: queries allowed; None allows any number.
    """

    def __init__(self, predict: Predict, *, access: Access, budget: int | None = None) -> None:
        self._predict = predict
        self.access = access
        self.budget = budget
        self.queries = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] -> scores [N, K] or labels [N]; costs N queries.

        Raises:
            BudgetError: these N would exceed the budget; nothing is asked.
        """
        if self.budget is not None and self.queries + len(x) > self.budget:
            raise BudgetError(
                f"budget = {self.budget} queries: {self.queries} are spent and {len(x)} more are asked for"
            )
        self.queries += len(x)
        answers = self._predict(x)
        return answers.argmax(1) if self.access == "label" and answers.dim() == 2 else answers


def ask_all(ledger: Ledger, x: Tensor, batch_size: int = 1000) -> Tensor:
    """Ask every image once, in batches; refuse before the first one if the budget can not hold them all."""
    if ledger.budget is not None and ledger.queries + len(x) > ledger.budget:
        raise BudgetError(f"budget = {ledger.budget} queries: this attack needs {ledger.queries + len(x)}")
    return torch.cat([ledger(batch) for batch in x.split(batch_size)])
