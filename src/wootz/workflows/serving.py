"""Serve the model of a run folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import torch
from torch import Tensor, nn

from wootz import checks
from wootz.serving import ModelInfo, QueryLog, ServingLimits, app, listen, serve, url_of
from wootz.types import AnswerAccess, Predict
from wootz.workflows.guard_log import LOG
from wootz.workflows.guard_service import open_guard
from wootz.workflows.run import open_run


def serve_run(
    folder: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    guard: bool = False,
    access: AnswerAccess = "scores",
    token: str = "",
    log: Path | None = None,
    limits: ServingLimits | None = None,
    device: str = "cpu",
    data: str | None = None,
    data_dir: Path | None = None,
    threads: int | None = None,
    show_url: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C, under the folder's name; what is under way then is answered.

    Args:
        folder: the run.
        host: address to listen at; the default one is reached from this computer only.
        port: 0 takes a free one.
        guard: change a keyed share of the answers, and log which.
        access: what an answer shows.
        token: whoever asks must show it; empty asks for none.
        log: file of questions and answers; one that is there is continued.
        limits: what is too much.
        device: `cpu` or `cuda`.
        data: the name or path of the run's data set, if it was moved.
        data_dir: where the data for a new guard's log are looked for first.
        threads: that PyTorch may use for one batch; None leaves it to PyTorch.
        show_url: gets the model's URL as soon as it can be asked at.

    Raises:
        StoreError: no run folder, or a log that cannot be written.
        ConfigError: an address that cannot be listened at, or a guard without a key.
    """
    if threads is not None:
        checks.at_least(1, threads=threads)
        torch.set_num_threads(threads)
    run = open_run(folder, data)
    info = ModelInfo(
        name=folder.resolve().name,
        shape=run.spec.shape,
        classes=run.spec.classes,
        data=Path(run.about["data"]).name,
        set_aside=run.set_aside,
        size=run.size,
        eps=run.eps,
        access=access,
    )
    answer = answering(run.model, device)
    with ExitStack() as opened:
        guarded = opened.enter_context(open_guard(run, answer, run.folder / LOG, data_dir)) if guard else None
        written = opened.enter_context(QueryLog(log)) if log is not None else None
        application = app(answer, info, guard=guarded, token=token, log=written, limits=limits)
        listening = opened.enter_context(listen(host, port))
        show_url(f"{url_of(listening)}/v2/models/{quote(info.name)}")
        serve(application, listening)


def answering(model: nn.Module, device: str) -> Predict:
    """Move `model` to `device` for good, in eval mode, and return it as images -> log-probabilities [N, K]."""
    model = model.to(device).eval().requires_grad_(False)

    def predict(x: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = model(x.to(device))
            return logits.float().log_softmax(1).cpu()

    return predict
