"""Hand the cells of a grid to an experiment tracker: one run a cell, named by its digest.

`sink (cells, folder, target) -> runs written`. Sending again doubles nothing. Trackers are optional: each is an extra.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from wootz.errors import ConfigError, StoreError
from wootz.records import Result
from wootz.registry import lookup
from wootz.report.bench import read_bench
from wootz.report.read import read_findings
from wootz.report.runs import metrics, parameters, record_digest, run_name
from wootz.store import write_bytes

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

Sink: TypeAlias = Callable[[Sequence[Result], Path, str], int]

_CELL, _RECORD, _ERROR = "wootz.cell", "wootz.record", "wootz.error"
_LETTERS = 1000
_PAGE = 1000


def send(folder: Path, sink: str, target: str) -> int:
    """Send all cells of a grid to a sink of SINKS and return how many runs were written.

    Raises:
        ConfigError: no such sink, its package is missing, or it can not use the target.
        StoreError: the folder holds no grid, or a broken one.
    """
    row = lookup(SINKS, sink, "sink")
    findings = read_findings(folder)
    if findings.source != "grid":
        raise StoreError(f"{folder}: there is no cells.jsonl; only the cells of a grid can be sent")
    return row(tuple({run_name(cell): cell for cell in findings.cells}.values()), folder, target)


def tensorboard(cells: Sequence[Result], folder: Path, target: str) -> int:
    """Write one event file a cell below the folder `target`: scalars, hyperparameters, a failure's error as text."""
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
    when = (folder / "cells.jsonl").stat().st_mtime  # a time of the records', so that equal records give equal files
    for cell in cells:
        name = run_name(cell)
        ended = plugin_data_pb2.SessionEndInfo(
            status=STATUS_SUCCESS if cell.error is None else STATUS_FAILURE, end_time_secs=when + cell.seconds
        )
        end = Summary()
        end.value.add(
            tag=metadata.SESSION_END_INFO_TAG,
            metadata=metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended)),
            tensor=metadata.NULL_TENSOR,
        )
        summaries = [hparams_pb(parameters(cell), trial_id=name, start_time_secs=when)]
        summaries += [scalar_pb(tag, value) for tag, value in metrics(cell).items()]
        summaries += [] if cell.error is None else [text_pb("error", cell.error)]
        file = io.BytesIO()
        writer = RecordWriter(file)
        writer.write(Event(wall_time=when, file_version="brain.Event:2").SerializeToString())
        for summary in (*summaries, end):
            # TensorBoard's protocol buffers are its own twins of TensorFlow's: they meet as bytes.
            writer.write(Event(wall_time=when, step=0, summary=summary).SerializeToString(deterministic=True))
        write_bytes(Path(target) / name / "events.out.tfevents.0.wootz", file.getvalue())
    return len(cells)


def mlflow(cells: Sequence[Result], folder: Path, target: str) -> int:
    """Write one run a cell to the tracking URI `target`, in an experiment named like the grid.

    A cell whose record is there already is left alone; one that was measured again replaces its run.
    """
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise _missing("mlflow", error) from error
    try:
        client = MlflowClient(tracking_uri=target)
        title = read_bench(folder).name or folder.resolve().name
        experiment = client.get_experiment_by_name(title)
        place = client.create_experiment(title) if experiment is None else experiment.experiment_id
        present = {run.data.tags.get(_CELL): run for run in _runs(client, place)}
        fresh = [cell for cell in cells if not _same(present.get(run_name(cell)), cell)]
        for cell in fresh:
            old = present.get(run_name(cell))
            if old is not None:
                client.delete_run(old.info.run_id)
            _log(client, place, cell)
    except MlflowException as error:
        raise ConfigError(f"mlflow={target}: {error}") from error
    return len(fresh)


SINKS: Mapping[str, Sink] = MappingProxyType({"tensorboard": tensorboard, "mlflow": mlflow})
"""Name on the command line -> what writes there."""


def _runs(client: MlflowClient, place: str) -> list[Run]:
    """Return all runs of an experiment, page by page."""
    page = client.search_runs([place], max_results=_PAGE)
    found = list(page)
    while page.token:
        page = client.search_runs([place], max_results=_PAGE, page_token=page.token)
        found += page
    return found


def _same(run: Run | None, cell: Result) -> bool:
    """Return whether a run holds this very record, whole: a killed call leaves runs that never finished."""
    whole = run is not None and run.info.status in ("FINISHED", "FAILED")
    return whole and run is not None and run.data.tags.get(_RECORD) == record_digest(cell)


def _log(client: MlflowClient, place: str, cell: Result) -> None:
    from mlflow.entities import Metric, Param

    tags = {_CELL: run_name(cell), _RECORD: record_digest(cell)}
    tags |= {} if cell.error is None else {_ERROR: cell.error[:_LETTERS]}
    run = client.create_run(place, run_name=run_name(cell), tags=tags)
    when = run.info.start_time
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, value, when, 0) for name, value in metrics(cell).items()],
        params=[Param(name, value[:_LETTERS]) for name, value in parameters(cell).items()],
    )
    client.set_terminated(run.info.run_id, "FINISHED" if cell.error is None else "FAILED")


def _missing(extra: str, error: ImportError) -> ConfigError:
    return ConfigError(f"{extra} is not installed ({error}): pip install 'wootz[{extra}]'")
