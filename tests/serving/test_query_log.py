"""The effect of a guard, and the log of queries and answers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from serving.small_service import INFER, INFO, body, document, images, query, read_metrics, scores
from wootz.errors import StoreError
from wootz.serving import QueryLog, app, running
from wootz.store import tensor_digest


def test_the_guard_changes_scores_and_labels(tmp_path: Path) -> None:
    """This guard rolls the scores of images whose first pixel is bright."""

    def guard(x: Tensor, scores: Tensor) -> Tensor:
        return torch.where((x[:, 0, 0, :1] > 0.5), scores.roll(1, dims=1), scores)

    x = images(20)
    expected = guard(torch.from_numpy(x), scores(torch.from_numpy(x)))
    with QueryLog(tmp_path / "log") as log, running(app(scores, INFO, guard=guard, log=log)) as url:
        score_output, label = query(url, INFER, json=document(x) | {"id": "né"}).json()["outputs"]
        assert np.array_equal(np.array(score_output["data"], np.float32).reshape(20, 5), expected.numpy())
        assert label["data"] == expected.argmax(1).tolist()
        changed = int((expected.argmax(1) != scores(torch.from_numpy(x)).argmax(1)).sum())
        assert 0 < changed < 20
        assert read_metrics(url)["wootz_changed_answers_total"] == changed
        lines = [json.loads(line) for line in (tmp_path / "log").read_text("utf-8").splitlines()]
    assert [line["image"] for line in lines] == [tensor_digest(image) for image in torch.from_numpy(x)]
    assert [line["label"] for line in lines] == label["data"]
    assert {(line["id"], len(line)) for line in lines} == {("né", 4)}
    assert lines[0]["time"].endswith("+00:00")


def test_without_a_log_entry_nothing_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    write = os.write
    with QueryLog(path) as log, running(app(scores, INFO, log=log)) as url:
        assert query(url, INFER, content=body(images(1))).status_code == 200
        complete = path.read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr("wootz.store.os.write", lambda file, data: write(file, data[:10]))
            response = query(url, INFER, content=body(images(1)))
        assert (response.status_code, response.json()) == (500, {"error": "the service failed; see its log"})
        assert "log: cannot be written (No space left on device); the request is not answered" in caplog.text
        assert path.read_bytes() == complete
        assert query(url, INFER, content=body(images(1))).status_code == 200
    assert len(path.read_bytes()) == 2 * len(complete)


def test_a_log_is_continued_after_its_last_complete_line_by_one_process_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log"
    with QueryLog(path) as log:
        log.write(None, images(2), [1, 2])
        with pytest.raises(StoreError, match="another process writes it"):
            QueryLog(path)
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("ab") as file:
        file.write(b'{"time": "2026')
    with QueryLog(path) as log:
        log.write("x", images(1), [3])
    assert path.read_bytes().startswith(first)
    assert [json.loads(line)["label"] for line in path.read_text().splitlines()] == [1, 2, 3]
    with pytest.raises(StoreError, match="cannot be opened"):
        QueryLog(tmp_path)
