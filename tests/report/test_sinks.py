"""Results in experiment trackers, read back with the trackers' own readers."""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import grids
import pytest

from commands import run_command
from wootz.errors import ConfigError, StoreError
from wootz.report import send
from wootz.report.sinks import SINKS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return grids.write(tmp_path / "grid", grids.small())


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "mlruns").as_uri()


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return read


def test_tensorboard_reads_every_cell(folder: Path, tmp_path: Path) -> None:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS

    logs = tmp_path / "logs"
    assert send(folder, "tensorboard", str(logs)) == 12
    assert len(list(logs.iterdir())) == 12
    read = events(logs / "mnist-pgd-at-wootz-retrain-1")
    values = {tag: read.Tensors(tag)[0].tensor_proto.float_val[0] for tag in read.Tags()["tensors"] if tag[0] != "_"}
    expected = {
        "clean": 0.9,
        "robust": 0.8,
        "also/autoattack-Linf-0.25": 0.5,
        "bits/triggers": 0.0,
        "bits/runner-up": 70.0,
        "bits/all": 70.0,
        "seconds": 2.0,
    }
    assert values == pytest.approx(expected)
    content = read.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    start = metadata.parse_session_start_info_plugin_data(content)
    assert start.hparams["theft"].string_value == "retrain"
    assert start.hparams["seed"].string_value == "1"
    end = read.summary_metadata[metadata.SESSION_END_INFO_TAG].plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(end).status == STATUS_SUCCESS
    broken = events(logs / "mnist-pgd-at-wootz-prune-50-1")
    assert b"not finite" in broken.Tensors("error")[0].tensor_proto.string_val[0]
    end = broken.summary_metadata[metadata.SESSION_END_INFO_TAG].plugin_data.content
    assert metadata.parse_session_end_info_plugin_data(end).status == STATUS_FAILURE


def test_tensorboard_written_twice_is_the_same(folder: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"

    def written() -> dict[Path, bytes]:
        send(folder, "tensorboard", str(logs))
        return {path: path.read_bytes() for path in logs.rglob("events*")}

    first = written()
    assert written() == first
    assert len(first) == 12


def test_mlflow_reads_every_cell(folder: Path, store: str) -> None:
    from mlflow import MlflowClient

    (folder / "bench.json").write_text(json.dumps({"schema": 1, "name": "small grid"}))
    assert send(folder, "mlflow", store) == 12
    client = MlflowClient(tracking_uri=store)
    experiment_id = client.get_experiment_by_name("small grid").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment_id])}
    assert len(runs) == 12
    run = runs["mnist-pgd-at-wootz-retrain-1"]
    assert run.info.status == "FINISHED"
    assert run.data.params == {
        "data": "mnist",
        "model": "small-cnn",
        "loss": "pgd-at",
        "mark": "wootz",
        "theft": "retrain",
        "access": "scores",
        "suspect": "retrain-1",
        "kind": "stolen",
        "seed": "1",
    }
    assert run.data.metrics == {
        "clean": 0.9,
        "robust": 0.8,
        "also/autoattack-Linf-0.25": 0.5,
        "bits/triggers": 0.0,
        "bits/runner-up": 70.0,
        "bits/all": 70.0,
        "seconds": 2.0,
    }
    broken = runs["mnist-pgd-at-wootz-prune-50-1"]
    assert broken.info.status == "FAILED"
    assert broken.data.tags["wootz.error"] == "TrainingError: the loss is not finite"


def test_mlflow_doubles_nothing_and_replaces_what_was_measured_again(folder: Path, store: str) -> None:
    from mlflow import MlflowClient

    assert send(folder, "mlflow", store) == 12
    assert send(folder, "mlflow", store) == 0
    again = grids.cell("prune-50", "removed", 1, bits={"triggers": 50.0})
    grids.write(folder, [*grids.small(), again])
    assert send(folder, "mlflow", store) == 1
    client = MlflowClient(tracking_uri=store)
    experiment_id = client.get_experiment_by_name("grid").experiment_id
    runs = client.search_runs([experiment_id])
    assert len(runs) == 12
    (run,) = [run for run in runs if run.info.run_name == "mnist-pgd-at-wootz-prune-50-1"]
    assert (run.info.status, run.data.metrics["bits/all"]) == ("FINISHED", 50.0)


def test_names_of_runs_stay_inside_their_folder(folder: Path, tmp_path: Path, store: str) -> None:
    grids.write(folder, [grids.cell("independent", "independent", 1, suspect="../../up {x} 日", bits={"../m": 1.0})])
    logs = tmp_path / "logs"
    assert send(folder, "tensorboard", str(logs)) == 1
    assert [path.name for path in logs.iterdir()] == ["mnist-pgd-at-wootz-independent-1-_.._up_x_"]
    assert not (tmp_path / "up").exists()
    assert send(folder, "mlflow", store) == 1


@pytest.mark.parametrize("sink", SINKS)
def test_a_missing_extra_is_named(folder: Path, tmp_path: Path, sink: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == sink:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=rf"pip install 'wootz\[{sink}\]'"):
        send(folder, sink, str(tmp_path / "target"))


def test_every_sink_has_an_extra() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert all(extras[sink] for sink in SINKS)
    assert "wootz[all]" in extras["dev"]
    (everything,) = extras["all"]
    assert set(SINKS) <= set(everything.removeprefix("wootz[").removesuffix("]").split(","))


def test_what_can_not_be_sent_is_one_plain_line(folder: Path, tmp_path: Path, store: str) -> None:
    with pytest.raises(ConfigError, match="did you mean 'mlflow'"):
        send(folder, "mlfow", store)
    with pytest.raises(ConfigError, match="mlflow=nowhere://x"):
        send(folder, "mlflow", "nowhere://x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/record.json").write_text(json.dumps(grids.cell("none", "protected", 1)))
    with pytest.raises(StoreError, match=r"no cells\.jsonl"):
        send(tmp_path / "run", "mlflow", store)


def test_the_command_line_sends(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run_command(capsys, monkeypatch, "report", folder, "--sink", f"tensorboard={tmp_path / 'logs'}", "--json")
    assert said.json["report"] == str(folder / "report.html")
    assert said.json["files"] == [str(folder / f"report.{ending}") for ending in ("html", "md", "csv", "tex")]
    assert said.json["sent"] == {"tensorboard": 12}
    said = run_command(capsys, monkeypatch, "report", folder, "--sink", "tensorboard")
    assert said.code == 2
    assert "must be tensorboard=LOGDIR or mlflow=URI" in said.err
