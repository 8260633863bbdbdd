from __future__ import annotations

import pytest
import torch
from torch import nn

from helpers import CPU
from wootz.data import Dataset
from wootz.errors import BudgetError
from wootz.evasion import predict_logits
from wootz.models import ModelSpec, build
from wootz.stealing import ATTACKS, Ledger, Retrain, ask_all, retrain
from wootz.verify import predictor


class TestLedger:
    def test_counts_images_and_refuses_before_asking(self) -> None:
        asked: list[int] = []

        def victim(x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            return torch.zeros(len(x), 3)

        ledger = Ledger(victim, access="scores", budget=10)
        ledger(torch.zeros(7, 1, 2, 2))
        with pytest.raises(BudgetError, match="budget = 10 queries: 7 are spent and 4 more are asked for"):
            ledger(torch.zeros(4, 1, 2, 2))
        assert (ledger.queries, asked) == (7, [7])
        with pytest.raises(BudgetError, match="this attack needs 27"):
            ask_all(ledger, torch.zeros(20, 1, 2, 2), batch_size=2)
        assert ledger.queries == 7

    def test_shows_no_more_than_its_access(self, plain: nn.Module, digits: Dataset) -> None:
        x = digits.test.images()[:5]
        assert Ledger(predictor(plain), access="label")(x).dtype == torch.int64
        assert Ledger(predictor(plain), access="scores")(x).shape == (5, 10)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("probabilities", [False, True])
def test_extraction_succeeds_against_an_undefended_model(
    attack: str, probabilities: bool, plain: nn.Module, digits: Dataset, small_spec: ModelSpec
) -> None:
    answers = predictor(plain)
    ledger = Ledger((lambda x: answers(x).softmax(1)) if probabilities else answers, access=ATTACKS[attack].access)
    cfg = Retrain(labels=ATTACKS[attack].config.labels, epochs=12, lr=5e-3)
    stolen = retrain(cfg, ledger, digits.train, build(small_spec, 77), seed=7, execution=CPU)
    x = digits.test.images()
    agreement = (predict_logits(stolen, x).argmax(1) == predict_logits(plain, x).argmax(1)).float().mean()
    assert agreement > 0.9
    assert ledger.queries == len(digits.train)
