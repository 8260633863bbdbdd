"""Every kind of fault on twenty images: no image is sent again after status 200, and the budget holds."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from suspects.endpoints.client_process import random_images
from suspects.endpoints.fault_server import FAULTS, FaultServer, digest, run_fault_server, scores, url_of
from wootz.errors import BudgetError, ModelError
from wootz.suspects.endpoints import Client, open_endpoint
from wootz.types import AnswerAccess

RECOVERED = ("429, seconds", "429, date", "500", "503", "reset before the answer", "closed before the answer")
"""Faults after which a request is sent again."""


def expected_scores(x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([scores(image) for image in x.numpy()])


def image_digests(x: torch.Tensor) -> list[str]:
    return [digest(image) for image in x.numpy()]


def check_answers(server: FaultServer, x: torch.Tensor, answers: torch.Tensor, answered: list[bool]) -> None:
    """Check that no image was sent after status 200, and that exactly the answered images have correct scores."""
    assert server.repeated == []
    expected = expected_scores(x)
    for row, is_answered in enumerate(answered):
        assert answers[row].equal(expected[row]) if is_answered else answers[row].isnan().all(), row


@pytest.mark.parametrize("fault", sorted(FAULTS.keys() - {"slow drip"}))
def test_no_image_is_answered_twice(fault: str) -> None:
    x, sleeps = random_images(30), list[float]()
    digests = image_digests(x)
    faulty = random.Random(fault).sample(digests, 20)
    never_answered = set(faulty[::4])

    def plan(before: int, digest: str) -> str | None:
        return fault if digest in faulty and (before < 2 or digest in never_answered) else None

    with (
        run_fault_server(plan) as server,
        open_endpoint(
            url_of(server),
            Client(budget=30, response_limit=2**16),
            access="scores",
            transcript=None,
            sleep=sleeps.append,
        ) as endpoint,
    ):
        answers = endpoint(x)
        missing = never_answered if fault in RECOVERED else set(faulty)
        check_answers(server, x, answers, [digest not in missing for digest in digests])
        assert max(server.seen.values()) == (5 if fault in RECOVERED else 1)
        assert endpoint.queries == sum(1 for digest in digests if server.seen[digest]) == 30
        assert sum(endpoint.missing.values()) == len(missing)
        assert endpoint.refused == (20 if fault in ("redirect", "refusal") else 0)
        assert endpoint.notes()
        posts = len(server.bodies)
        assert torch.equal(endpoint(x).nan_to_num(-1), answers.nan_to_num(-1))
        with pytest.raises(BudgetError, match="30 were sent and 1 more"):
            endpoint(random_images(1, seed=9))
        assert len(server.bodies) == posts
    assert len(sleeps) == (15 * 2 + 5 * 4 if fault in RECOVERED else 0)
    if fault.startswith("429"):
        assert min(sleeps) == (7 if fault == "429, seconds" else 60)
    assert max(sleeps, default=0) <= (60 if fault == "429, date" else 0.5 * 2**4)


def test_the_deadline_covers_a_whole_response() -> None:
    x = random_images(20)

    def query(part: torch.Tensor) -> torch.Tensor:
        cfg = Client(connect_timeout=0.4, read_timeout=0.4, budget=5)
        with open_endpoint(url_of(server), cfg, access="scores", transcript=None) as endpoint:
            return endpoint(part)

    with run_fault_server(lambda *_: "slow drip") as server, ThreadPoolExecutor(5) as pool:
        answers = torch.cat(list(pool.map(query, x.split(4))))
        check_answers(server, x, answers, [False] * 20)
        assert sum(server.seen.values()) == 20


@pytest.mark.parametrize("access", ["label", "scores"])
def test_a_batch_is_answered_or_missing_as_a_whole(access: AnswerAccess) -> None:
    x = random_images(20)
    digests = image_digests(x)

    def plan(before: int, digest: str) -> str | None:
        return "500" if digest == digests[3] and before < 4 else "null fields" if digest == digests[10] else None

    with (
        run_fault_server(plan) as server,
        open_endpoint(
            url_of(server), Client(batch=8, budget=20), access=access, transcript=None, sleep=lambda _: None
        ) as endpoint,
    ):
        answers = endpoint(torch.cat([x, x[:5]]))
        assert len(server.bodies) == 5 + 1 + 1
        assert server.repeated == []
    expected = torch.cat([expected_scores(x), expected_scores(x[:5])])
    missing = torch.tensor([8 <= row < 16 for row in range(25)])
    if access == "label":
        assert torch.equal(answers, expected.argmax(1).masked_fill(missing, -1))
    else:
        assert torch.equal(answers.isnan().all(1), missing)
        assert torch.equal(answers[~missing], expected[~missing])


def test_a_non_finite_score_affects_only_its_own_image(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random_images(4)
    third = image_digests(x)[2]
    monkeypatch.setattr(
        "suspects.endpoints.fault_server.scores",
        lambda image: [float("nan") if digest(image) == third else 0.0, *range(9)],
    )
    with (
        run_fault_server() as server,
        open_endpoint(url_of(server), Client(batch=4), access="label", transcript=None) as endpoint,
    ):
        assert endpoint(x).tolist() == [9, 9, -1, 9]
        assert endpoint.notes() == ("1 images without an answer: unusable, the answer holds NaN, null or infinity",)


def test_a_closed_port_is_tried_five_times() -> None:
    with run_fault_server() as server:
        url = url_of(server)
    sleeps: list[float] = []
    with (
        pytest.raises(ModelError, match="no model answers there"),
        open_endpoint(url, Client(), access="label", transcript=None, sleep=sleeps.append),
    ):
        pass
    assert len(sleeps) == 4
