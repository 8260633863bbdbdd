"""Send the results of a grid to an experiment tracker, one run per result, named by its digest.

A sink is a function `(results, folder, target) -> runs written`; sending results twice gives the same runs. Trackers
are optional dependencies, one extra each.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from wootz.errors import ConfigError, StoreError
from wootz.records import RESULTS_FILE, Result
from wootz.registry import lookup
from wootz.report.formats import format_eps
from wootz.report.read import read_findings, read_grid_metadata, record_digest
from wootz.store import write_bytes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Sink: TypeAlias = Callable[[Sequence[Result], Path, str], int]

_CELL, _RECORD, _ERROR = "wootz.cell", "wootz.record", "wootz.error"
_LETTERS = 1000
_PAGE = 1000


def send(folder: Path, sink: str, target: str) -> int:
    """Send all results of a grid to a tracker and return how many runs were written.

    Args:
        folder: The grid's folder.
        sink: A name in `SINKS`.
        target: Where the tracker keeps its runs: a folder or a tracking URI.

    Raises:
        ConfigError: There is no such sink, its package is missing, or it cannot use the target.
        StoreError: The folder holds no grid, or a broken one.
    """
    write_runs = lookup(SINKS, sink, "sink")
    findings = read_findings(folder)
    if findings.source != "grid":
        raise StoreError(f"{folder}: there is no {RESULTS_FILE}; only the results of a grid can be sent")
    return write_runs(tuple({_run_name(result): result for result in findings.results}.values()), folder, target)


def tensorboard(results: Sequence[Result], folder: Path, target: str) -> int:
    """Write one event file per result below the folder `target`: scalars, hyperparameters, and an error as text."""
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2
        from tensorboard.plugins.hparams.api_pb2 import STATUS_FAILURE, STATUS_SUCCESS
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError as error:
        raise _missing("tensorboard", error) from error
    timestamp = (folder / RESULTS_FILE).stat().st_mtime  # not the time of this call: equal records give equal files
    for result in results:
        name = _run_name(result)
        ended = plugin_data_pb2.SessionEndInfo(
            status=STATUS_SUCCESS if result.error is None else STATUS_FAILURE, end_time_secs=timestamp + result.seconds
        )
        end = Summary()
        end.value.add(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended)),
            tensor=metadata.NULL_TENSOR,
        )
        summaries = [hparams_pb(_parameters(result), trial_id=name, start_time_secs=timestamp)]
        summaries += [scalar_pb(tag, value) for tag, value in _metrics(result).items()]
        summaries += [] if result.error is None else [text_pb("error", result.error)]
        file = io.BytesIO()
        writer = RecordWriter(file)
        writer.write(Event(wall_time=timestamp, file_version="brain.Event:2").SerializeToString())
        for summary in (*summaries, end):
            # TensorBoard's protocol buffers are copies of TensorFlow's types, so the two are exchanged as bytes.
            writer.write(Event(wall_time=timestamp, step=0, summary=summary).SerializeToString(deterministic=True))
        write_bytes(Path(target) / name / "events.out.tfevents.0.wootz", file.getvalue())
    return len(results)


def mlflow(results: Sequence[Result], folder: Path, target: str) -> int:
    """Write one run per result to the tracking URI `target`, in an experiment named like the grid.

    A result whose record is stored already is skipped; a repeated measurement replaces the run of the earlier one.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise _missing("mlflow", error) from error
    try:
        client = MlflowClient(tracking_uri=target)
        title = read_grid_metadata(folder).name or folder.resolve().name
        experiment = client.get_experiment_by_name(title)
        experiment_id = client.create_experiment(title) if experiment is None else experiment.experiment_id
        stored = {run.data.tags.get(_CELL): run for run in _runs(client, experiment_id)}
        new = [result for result in results if not _same(stored.get(_run_name(result)), result)]
        for result in new:
            outdated = stored.get(_run_name(result))
            if outdated is not None:
                client.delete_run(outdated.info.run_id)
            _log(client, experiment_id, result)
    except MlflowException as error:
        raise ConfigError(f"mlflow={target}: {error}") from error
    return len(new)


SINKS: Mapping[str, Sink] = MappingProxyType({"tensorboard": tensorboard, "mlflow": mlflow})
"""Sinks by their name on the command line."""


def _run_name(result: Result) -> str:
    """Return the name of a result's run: its digest, with the suspect for independent models, which may share one."""
    digest = (result.digest or record_digest(result)).removeprefix("sha256:")
    return f"{digest}-{_safe_name(result.suspect)}" if result.kind == "independent" else digest


def _parameters(result: Result) -> dict[str, str]:
    """Return what distinguishes results: their axes, suspect, kind and seed."""
    identity = {"suspect": result.suspect, "kind": result.kind, "seed": str(result.seed)}
    return {"data": result.data} | result.axes | identity


def _metrics(result: Result) -> dict[str, float]:
    """Return the figures of a result: accuracies as fractions, evidence in bits, seconds."""
    figures = {"clean": result.clean, "robust": None if result.robust is None else result.robust.accuracy}
    figures |= {f"also/{_safe_name(f'{r.attack}-{r.norm}-{format_eps(r.eps)}')}": r.accuracy for r in result.also}
    figures |= {f"bits/{_safe_name(item.mark)}": item.bits for item in result.evidence}
    figures |= {"bits/all": result.bits, "agreement": result.agreement, "seconds": result.seconds}
    return {name: float(value) for name, value in figures.items() if value is not None}


def _safe_name(name: str) -> str:
    """Return a name in letters that are safe in paths, tags and trackers."""
    return re.sub(r"[^0-9A-Za-z._-]+", "_", name).lstrip(".") or "_"


def _runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Return all runs of an experiment, page by page."""
    page = client.search_runs([experiment_id], max_results=_PAGE)
    runs = list(page)
    while page.token:
        page = client.search_runs([experiment_id], max_results=_PAGE, page_token=page.token)
        runs += page
    return runs


def _same(run: Run | None, result: Result) -> bool:
    """Whether a run is complete (a killed call leaves unfinished ones) and holds exactly this record."""
    complete = run is not None and run.info.status in ("FINISHED", "FAILED")
    return complete and run is not None and run.data.tags.get(_RECORD) == record_digest(result)


def _log(client: MlflowClient, experiment_id: str, result: Result) -> None:
    from mlflow.entities import Metric, Param

    tags = {_CELL: _run_name(result), _RECORD: record_digest(result)}
    tags |= {} if result.error is None else {_ERROR: result.error[:_LETTERS]}
    run = client.create_run(experiment_id, run_name=_run_name(result), tags=tags)
    timestamp = run.info.start_time
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, timestamp, 0) for name, value in _metrics(result).items()],
        params=[Param(name, value[:_LETTERS]) for name, value in _parameters(result).items()],
    )
    client.set_terminated(run.info.run_id, "FINISHED" if result.error is None else "FAILED")


def _missing(extra: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{extra} is not installed ({error}): pip install 'wootz[{extra}]'")
