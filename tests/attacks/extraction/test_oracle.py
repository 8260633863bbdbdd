"""The ledger counts, records, refuses, and shows no more than it may."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wootz.attacks.extraction import BudgetedOracle, complete_answers, limit_answers, read_queries
from wootz.data import Dataset
from wootz.errors import BudgetError, ConfigError
from wootz.suspects.files import predictor


def zeros(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(x), 3)


def test_it_counts_images_and_refuses_before_asking() -> None:
    asked: list[int] = []

    def victim(x: torch.Tensor) -> torch.Tensor:
        asked.append(len(x))
        return zeros(x)

    oracle = BudgetedOracle(victim, access="scores", num_classes=3, budget=10)
    oracle(torch.zeros(7, 1, 2, 2))
    with pytest.raises(BudgetError, match="budget = 10 queries: 7 are spent and this attack needs 4 more"):
        oracle(torch.zeros(4, 1, 2, 2))
    assert (oracle.queries, asked) == (7, [7])
    with pytest.raises(BudgetError, match="it fits a budget of 27"):
        oracle.query(torch.zeros(20, 1, 2, 2), batch_size=2)
    assert oracle.queries == 7


def test_access_shows_what_it_says() -> None:
    p = torch.tensor([[0.614, 0.0, 0.286, 0.1]])
    logits = p.clamp_min(1e-9).log() + 3
    assert torch.allclose(limit_answers(logits, "scores"), p, atol=1e-5)
    assert torch.equal(limit_answers(p, "scores"), p)
    assert torch.allclose(limit_answers(p, "top-2"), torch.tensor([[0.614, 0.0, 0.286, 0.0]]))
    assert torch.allclose(limit_answers(p, "rounded-1"), torch.tensor([[0.6, 0.0, 0.3, 0.1]]))
    assert limit_answers(p, "label").tolist() == [0]
    assert limit_answers(torch.tensor([2]), "label").tolist() == [2]
    with pytest.raises(BudgetError, match="labels only"):
        limit_answers(torch.tensor([2]), "scores")
    for bad in ("labels", "top-0", "rounded-12", ""):
        with pytest.raises(ConfigError, match="must be label, scores, top-K"):
            BudgetedOracle(zeros, access=bad, num_classes=3)


@given(st.integers(0, 10_000), st.sampled_from(["label", "scores", "top-1", "top-3", "rounded-0", "rounded-2"]))
def test_what_is_completed_is_a_distribution_with_the_same_winner(seed: int, access: str) -> None:
    logits = 4 * torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))
    whole = complete_answers(limit_answers(logits, access), 6)
    assert whole.shape == (5, 6)
    assert whole.min() >= 0
    assert torch.allclose(whole.sum(1), torch.ones(5), atol=1e-5)
    if access != "rounded-0":  # nothing may be left of a flat answer
        assert (whole.gather(1, logits.argmax(1, keepdim=True)).squeeze(1) >= whole.amax(1) - 0.011).all()


def test_every_query_is_recorded_and_a_log_is_continued(tmp_path: Path, plain: nn.Module, digits: Dataset) -> None:
    x, log = digits.test.images()[:9], tmp_path / "queries.log"
    first = BudgetedOracle(predictor(plain), access="label", num_classes=10, budget=12, log=log)
    labels = first.query(x, batch_size=4)
    second = BudgetedOracle(predictor(plain), access="scores", num_classes=10, budget=12, log=log)
    assert second.queries == 9
    second(x[:3])
    rows = read_queries(log)
    assert rows["label"].tolist() == [*labels.tolist(), *labels[:3].tolist()]
    assert rows["image"][0] == rows["image"][9] != rows["image"][1]
    with pytest.raises(BudgetError, match="12 are spent"):
        second(x[:1])
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])  # killed while the last query was recorded
    third = BudgetedOracle(predictor(plain), access="label", num_classes=10, log=log)
    assert third.queries == 11
    third(x[2:3])
    assert log.read_bytes() == whole


def test_labels_of_all_classes_there_may_be_are_recorded(tmp_path: Path) -> None:
    said, log = torch.tensor([0, 255, 256, 32_768, 65_535, -1]), tmp_path / "queries.log"
    BudgetedOracle(lambda x: said, access="label", num_classes=65_536, log=log)(torch.zeros(6, 1, 2, 2))
    assert read_queries(log)["label"].tolist() == said.tolist()


@pytest.fixture
def endpoint(plain: nn.Module) -> Iterator[str]:
    """A real HTTP server that answers images with labels."""
    predict = predictor(plain, "label")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            x = torch.frombuffer(bytearray(body), dtype=torch.float32).view(-1, 1, 28, 28)
            answer = json.dumps(predict(x).tolist()).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_the_same_ledger_stands_before_an_endpoint(endpoint: str, plain: nn.Module, digits: Dataset) -> None:
    def remote(x: torch.Tensor) -> torch.Tensor:
        request = urllib.request.Request(endpoint, data=x.numpy().tobytes())
        with urllib.request.urlopen(request) as answer:
            return torch.tensor(json.load(answer))

    x = digits.test.images()[:50]
    oracle = BudgetedOracle(remote, access="label", num_classes=10, budget=50)
    assert torch.equal(oracle.query(x, batch_size=20), predictor(plain, "label")(x))
    assert oracle.queries == 50
    with pytest.raises(BudgetError):
        oracle(x[:1])
