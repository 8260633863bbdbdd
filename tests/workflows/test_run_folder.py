"""No file of a run folder changes a verdict without a word: it is refused, or it does not matter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from authority import serving
from court import Court
from wootz.attacks.evasion import predict_logits
from wootz.data import Dataset
from wootz.errors import Error
from wootz.keys import AnswerKey, read_keys
from wootz.models import read_model
from wootz.statistics import Outcome
from wootz.watermarks import AnswerFilter, CalibrationScores
from wootz.workflows.guard_log import LOG, SEALS
from wootz.workflows.owner import Owner
from wootz.workflows.register import register_run
from wootz.workflows.suspects import QueryConfig
from wootz.workflows.verify import verify_suspect

QUERY = QueryConfig(isolated=False, budget=64)


@pytest.fixture
def run(as_owner: Court, digits: Dataset, tmp_path: Path) -> Path:
    """Return a copy of the owner's run, whose guard served some images and whose log was sealed."""
    run = tmp_path / "run"
    shutil.copytree(as_owner.owner, run)
    key, model = read_keys(run).by_mark["guard"], read_model(run)[0]
    assert isinstance(key, AnswerKey)
    images = digits.test.subset(slice(600)).images()
    scores = predict_logits(model, images)
    with AnswerFilter(key, run / LOG, shape=digits.shape, calibration=calibration(model, digits)) as answers:
        answers(images, scores)
        assert answers.count > 2
    with serving(as_owner.authority) as url:
        register_run(run, tsa=url)
    return run


def calibration(model: Any, digits: Dataset) -> CalibrationScores:
    few = digits.validation.subset(slice(300))
    return CalibrationScores(predict_logits(model, few.images()), few.labels)


def verdict(run: Path, suspect: Path) -> tuple[Outcome, float, tuple[str, ...]] | None:
    """Return outcome, bits and notes; None where the run is refused by one line."""
    try:
        found, _ = verify_suspect(Owner.load(run), suspect, QUERY)
    except Error as error:
        assert str(error)
        assert "\n" not in str(error)
        return None
    return found.outcome, pytest.approx(found.bits), found.notes


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


CHANGES: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda _: None,
    "empty": lambda _: b"",
    "without its last line": lambda data: data[: data.rstrip(b"\n").rfind(b"\n") + 1],
    "a byte in the middle": lambda data: _flip(data, len(data) // 2),
}
ADDED = ("registration.tsr", "key/other.safetensors", "panel/other/model.json", ".lock", "guard/other.jsonl")


def test_each_file_of_a_run_folder(run: Path, as_owner: Court, tmp_path: Path) -> None:
    suspect, copy = tmp_path / "suspect", tmp_path / "copy"
    shutil.copytree(as_owner.owner, suspect)
    expected = verdict(run, suspect)
    assert expected is not None
    assert expected[0] == Outcome.KEY_DEPENDENT
    silent, refused = [], set()
    shutil.copytree(run, copy)
    files = [path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file()]
    for file in (*files, *map(Path, ADDED)):
        path = copy / file
        path.parent.mkdir(parents=True, exist_ok=True)
        before = path.read_bytes() if path.is_file() else None
        for name, change in CHANGES.items() if before is not None else [("added", lambda _: b"x")]:
            after = change(before or b"")
            path.unlink(missing_ok=True) if after is None else path.write_bytes(after)
            found = verdict(copy, suspect)
            if found is None:
                refused.add(str(file))
            elif found != expected:
                silent.append((str(file), name, found))
        path.unlink(missing_ok=True) if before is None else path.write_bytes(before)
    assert not silent
    needed = {"registration.json", "registration.tsr", "key/key.json", "key/triggers.safetensors", str(LOG), str(SEALS)}
    assert refused >= needed | {f"panel/{name}/model.safetensors" for name in ("plain", "robust")}
    assert verdict(copy, suspect) == expected


def test_a_sealed_log_is_whole_or_refused(run: Path, as_owner: Court) -> None:
    """A log that lost lines, or went away, is another test; it is only by its seal that this can be seen."""
    data = (run / LOG).read_bytes()
    for cut in (data[: data.rstrip(b"\n").rfind(b"\n") + 1], data[: data.find(b"\n") + 1]):
        (run / LOG).write_bytes(cut)
        assert verdict(run, as_owner.owner) is None
    (run / LOG).unlink()
    assert verdict(run, as_owner.owner) is None
    (run / SEALS).unlink()
    found = verdict(run, as_owner.owner)
    assert found is not None
    assert "guard: left out, no log of keyed answers is there" in found[2]


@pytest.mark.parametrize("field", ["architecture", "settings", "input", "classes", "schema"])
@pytest.mark.parametrize("value", [None, 7, [], {}, "x", [[]]], ids=str)
def test_a_description_of_wrong_types_is_one_line(run: Path, as_owner: Court, field: str, value: Any) -> None:
    path = run / "panel" / "robust" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    assert verdict(run, as_owner.owner) is None
