"""Twenty times every kind of fault: nothing is asked again after a 200, and the budget holds."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from suspects.endpoints.asker import pictures
from suspects.endpoints.fault_server import FAULTS, FaultServer, at, digest, scores, serving
from wootz.errors import BudgetError, ModelError
from wootz.suspects.endpoints import Client, open_endpoint
from wootz.types import Access

RECOVERED = ("429, seconds", "429, date", "500", "503", "reset before the answer", "closed before the answer")
"""Faults after which another try is right."""


def truth(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([scores(image) for image in x.numpy()])


def names(x: torch.Tensor) -> list[str]:
    return [digest(image) for image in x.numpy()]


def check(server: FaultServer, asked: torch.Tensor, answers: torch.Tensor, good: list[bool]) -> None:
    """Check that nothing was asked after a 200, and that exactly the good answers are there, and right."""
    assert server.again == []
    right = truth(asked)
    for row, known in enumerate(good):
        assert answers[row].equal(right[row]) if known else answers[row].isnan().all(), row


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"slow drip"}))
def test_a_fault_costs_no_second_answer(fault: str) -> None:
    x, sleeps = pictures(30), list[float]()
    named = names(x)
    chosen = random.Random(fault).sample(named, 20)
    hopeless = set(chosen[::4])

    def plan(before: int, name: str) -> str | None:
        return fault if name in chosen and (before < 2 or name in hopeless) else None

    with (
        serving(plan) as server,
        open_endpoint(
            at(server), Client(budget=30, response_limit=2**16), access="scores", transcript=None, sleep=sleeps.append
        ) as endpoint,
    ):
        answers = endpoint(x)
        lost = hopeless if fault in RECOVERED else set(chosen)
        check(server, x, answers, [name not in lost for name in named])
        assert max(server.seen.values()) == (5 if fault in RECOVERED else 1)
        assert endpoint.queries == sum(1 for name in named if server.seen[name]) == 30
        assert sum(endpoint.missing.values()) == len(lost)
        assert endpoint.refused == (20 if fault in ("redirect", "refusal") else 0)
        assert endpoint.notes()
        posts = len(server.bodies)
        assert torch.equal(endpoint(x).nan_to_num(-1), answers.nan_to_num(-1))
        with pytest.raises(BudgetError, match="30 were sent and 1 more"):
            endpoint(pictures(1, seed=9))
        assert len(server.bodies) == posts
    assert len(sleeps) == (15 * 2 + 5 * 4 if fault in RECOVERED else 0)
    if fault.startswith("429"):
        assert min(sleeps) == (7 if fault == "429, seconds" else 60)
    assert max(sleeps, default=0) <= (60 if fault == "429, date" else 0.5 * 2**4)


def test_an_answer_that_drips_is_given_up_as_a_whole() -> None:
    x = pictures(20)

    def ask(part: torch.Tensor) -> torch.Tensor:
        cfg = Client(connect_timeout=0.4, read_timeout=0.4, budget=5)
        with open_endpoint(at(server), cfg, access="scores", transcript=None) as endpoint:
            return endpoint(part)

    with serving(lambda *_: "slow drip") as server, ThreadPoolExecutor(5) as pool:
        answers = torch.cat(list(pool.map(ask, x.split(4))))
        check(server, x, answers, [False] * 20)
        assert sum(server.seen.values()) == 20


@pytest.mark.parametrize("access", ["label", "scores"])
def test_a_batch_is_lost_and_won_as_one(access: Access) -> None:
    x = pictures(20)
    named = names(x)

    def plan(before: int, name: str) -> str | None:
        return "500" if name == named[3] and before < 4 else "null fields" if name == named[10] else None

    with (
        serving(plan) as server,
        open_endpoint(
            at(server), Client(batch=8, budget=20), access=access, transcript=None, sleep=lambda _: None
        ) as endpoint,
    ):
        answers = endpoint(torch.cat([x, x[:5]]))
        assert len(server.bodies) == 5 + 1 + 1
        assert server.again == []
    right = torch.cat([truth(x), truth(x[:5])])
    lost = torch.tensor([8 <= row < 16 for row in range(25)])
    if access == "label":
        assert torch.equal(answers, right.argmax(1).masked_fill(lost, -1))
    else:
        assert torch.equal(answers.isnan().all(1), lost)
        assert torch.equal(answers[~lost], right[~lost])


def test_a_bad_number_costs_only_its_own_image(monkeypatch: pytest.MonkeyPatch) -> None:
    x = pictures(4)
    third = names(x)[2]
    monkeypatch.setattr(
        "suspects.endpoints.fault_server.scores",
        lambda image: [float("nan") if digest(image) == third else 0.0, *range(9)],
    )
    with serving() as server, open_endpoint(at(server), Client(batch=4), access="label", transcript=None) as endpoint:
        assert endpoint(x).tolist() == [9, 9, -1, 9]
        assert endpoint.notes() == ("1 images without an answer: unusable, the answer holds NaN, null or infinity",)


def test_nothing_listens() -> None:
    with serving() as server:
        url = at(server)
    sleeps: list[float] = []
    with (
        pytest.raises(ModelError, match="no model answers there"),
        open_endpoint(url, Client(), access="label", transcript=None, sleep=sleeps.append),
    ):
        pass
    assert len(sleeps) == 4
