"""`wootz mark`: a network of someone else's code and weights becomes a run that every command takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from commands import assert_usage_error, run_command
from wootz.cli.app import main
from wootz.data import Dataset, load

CODE = Path(__file__).parents[2] / "examples" / "resnet.py"
QUICK = [
    word
    for setting in (
        "model.width=8",
        "marking.steps=200",
        "marking.lr=1e-3",
        "marking.even_steps=0",
        "marking.settle_steps=10",
        "panel.robust_epochs=3",
        "panel.plain_epochs=3",
        "triggers.count=64",
    )
    for word in ("--set", setting)
]


@pytest.fixture
def wootz(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    return lambda *words: run_command(capsys, monkeypatch, *words)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network in a file, and weights of an ordinary training loop by `torch.save`."""
    from wootz.models import ModelSpec, build

    data: Dataset = load("mnist-5k")
    folder = tmp_path_factory.mktemp("own")
    shutil.copy(CODE, folder / "own.py")
    spec = ModelSpec(
        architecture=f"{folder / 'own.py'}:make", settings={"width": 8}, shape=data.shape, classes=data.classes
    )
    model = build(spec, 0)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    model.train()
    for epoch in range(4):
        for rows in torch.randperm(len(data.train), generator=torch.Generator().manual_seed(epoch)).split(64):
            batch = data.train.subset(rows)
            loss = F.cross_entropy(model(batch.images()), batch.labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    torch.save({"state_dict": {f"module.{name}": t for name, t in model.state_dict().items()}}, folder / "own.pt")
    return folder


@pytest.fixture(scope="module")
def run(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, marked."""
    from _pytest.monkeypatch import MonkeyPatch

    out = tmp_path_factory.mktemp("runs") / "own"
    with MonkeyPatch.context() as patch:
        key = place / "owner.key"
        key.touch(mode=0o600)
        key.write_text("5e" * 32)
        patch.setenv("WOOTZ_OWNER_KEY", str(key))
        words = ["mark", f"{place / 'own.py'}:make", "--init", place / "own.pt", "--allow-torch-zip"]
        words += ["--data", "mnist-5k", "--out", out, "--bits", "60", "--json", *QUICK]
        patch.setattr("sys.argv", ["wootz", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
    return out


@pytest.fixture
def own_key(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOTZ_OWNER_KEY", str(place / "owner.key"))


pytestmark = pytest.mark.long


def test_it_records_the_model_before_and_after(run: Path) -> None:
    record = json.loads((run / "record.json").read_text())
    assert record["before"]["bits"] < 20 <= 40 < record["bits"]
    assert record["before"]["steps"] < 200
    assert record["agreement"] > 0.9
    assert record["before"]["clean"] > 0.85
    assert (run / "model.onnx").is_file()


def test_it_is_verified_registered_claimed_and_judged(wootz, run: Path, own_key: None, tmp_path: Path) -> None:
    verdict = wootz("verify", run, run, "--json")
    assert (verdict.code, verdict.json["verdict"]) == (0, "KEY-DEPENDENT")
    assert wootz("register", run).code == 0
    claim = wootz("claim", run, run, "--out", tmp_path / "c.json", "--yes")
    assert claim.code in (0, 1), claim.err
    judged = wootz("judge", tmp_path / "c.json", run, "--json")
    assert judged.code == claim.code
    assert judged.json["bits"] == pytest.approx(claim_bits(tmp_path / "c.json"), abs=0.5)


def claim_bits(path: Path) -> float:
    import base64

    statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    return float(statement["predicate"]["found"]["bits"])


def test_its_weights_alone_are_a_suspect(wootz, run: Path, place: Path, own_key: None, tmp_path: Path) -> None:
    shutil.copy(run / "model.safetensors", tmp_path / "stolen.safetensors")
    assert_usage_error(wootz("verify", run, tmp_path / "stolen.safetensors"), "--architecture")
    words = ("verify", run, tmp_path / "stolen.safetensors", "--architecture", f"{place / 'own.py'}:make", "--json")
    verdict = wootz(*words)
    assert (verdict.code, verdict.json["verdict"]) == (0, "KEY-DEPENDENT")
    unmarked = wootz(
        "verify", run, place / "own.pt", "--allow-torch-zip", "--architecture", f"{place / 'own.py'}:make", "--json"
    )
    assert unmarked.code in (1, 2)


def test_every_command_takes_it(wootz, run: Path, own_key: None, tmp_path: Path) -> None:
    assert wootz("evaluate", run, "-n", "50").code == 0
    assert wootz("export", run, "--out", tmp_path / "m.onnx").code == 0
    quick = ("-n", "20", "--json")
    stolen = wootz("steal", run, "--attack", "retrain-soft", "--out", tmp_path / "s", "--set", "epochs=1", *quick)
    assert stolen.code == 0, stolen.err
    removed = wootz("remove", run, "--attack", "finetune", "--out", tmp_path / "f", "--set", "epochs=1", *quick)
    assert removed.code == 0, removed.err
    assert wootz("verify", run, tmp_path / "f").code in (0, 1)


def test_images_without_labels(wootz, run: Path, place: Path, own_key: None, tmp_path: Path) -> None:
    words = ["mark", f"{place / 'own.py'}:make", "--init", place / "own.pt", "--allow-torch-zip", "--no-labels"]
    words += [
        "--data",
        "mnist-5k",
        "--out",
        tmp_path / "u",
        "--bits",
        "60",
        "--json",
        *QUICK,
        "--set",
        "model.num_classes=10",
    ]
    marked = wootz(*words)
    assert marked.code == 0, marked.err
    assert marked.json["before"]["clean"] == 1.0  # of its own answers
    assert marked.json["bits"] > 40
    assert wootz("evaluate", tmp_path / "u", "-n", "20").code == 0


def test_what_it_cannot_mark(wootz, place: Path, run: Path, tmp_path: Path) -> None:
    network, out = f"{place / 'own.py'}:make", ("--data", "mnist-5k", "--out", tmp_path / "r")
    weights = ("--init", place / "own.pt", "--allow-torch-zip", "--set", "model.width=8")
    assert_usage_error(wootz("mark", "small-cnn", *out), "has no weights", "--init FILE")
    assert_usage_error(wootz("mark", network, "--init", tmp_path / "none.pt", *out), "no such file")
    assert_usage_error(wootz("mark", network, *weights[:3], "--set", "model.width=9", *out), "another shape")
    assert_usage_error(
        wootz("mark", network, *weights, *out, "--marks", "frontier", *QUICK), "needs training from the start"
    )
    assert_usage_error(wootz("mark", run, "--init", place / "own.pt", *out), "is a run folder and has weights")
    assert not (tmp_path / "r" / "model.safetensors").exists()
