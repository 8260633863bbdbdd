"""Whom a thief robs or a remover alters: the model of a run folder, or whatever answers behind HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wootz.config import to_mapping, with_settings
from wootz.data import Dataset, load
from wootz.errors import ConfigError, ModelError
from wootz.models import ModelSpec
from wootz.models.architectures import SmallCNN
from wootz.suspects.endpoints import Client, open_endpoint
from wootz.suspects.files import predictor
from wootz.types import AnswerAccess, Predict
from wootz.watermarks import AnswerFilter
from wootz.workflows.guard_service import open_guard
from wootz.workflows.protection import defaults_for
from wootz.workflows.run import load_moved, open_run
from wootz.workflows.suspects import Where, is_endpoint, transcript_key

EXTRACTION_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionTarget:
    """A victim that is open.

    Attributes:
        predict: what answers.
        model: the network, where the attacker holds it.
        spec: its architecture; behind HTTP a guess, the small network.
        data: what it was trained on, which the attacker knows.
        eps: budget that robustness is measured at.
        record: the folder with its own record, where there is one.
        notes: what is to be told when all was asked.
    """

    predict: Predict = field(repr=False)
    model: nn.Module | None = field(repr=False)
    spec: ModelSpec
    data: Dataset
    eps: float
    record: Path | None
    notes: Callable[[], tuple[str, ...]] = tuple


@contextmanager
def open_target(
    where: Where,
    *,
    access: str,
    data: str | None,
    data_dir: Path | None,
    transcript: Path,
    client: Sequence[str] = (),
    guard: Path | None = None,
) -> Iterator[ExtractionTarget]:
    """Open a victim.

    Args:
        where: run folder, or the URL of an endpoint.
        access: what the attack asks for; an endpoint is asked for labels or scores accordingly.
        data: name or path of the data set, where an endpoint does not say it, or a run's was moved.
        data_dir: where data are looked for first.
        transcript: where questions to an endpoint and its answers are recorded.
        client: `key=value` settings of the client that asks it.
        guard: a run folder's model answers through the run's guard, which logs to this file; None asks it bare.

    Raises:
        ConfigError: the attack needs weights and the victim is an endpoint; or nobody says what data it knows; or a
            guard is wanted and there is none.
        ModelError: it takes other images, or knows other classes, than the data have.
    """
    if not is_endpoint(where):
        run = open_run(Path(where), data)
        bare = ExtractionTarget(
            predict=predictor(run.model),
            model=run.model,
            spec=run.spec,
            data=run.data(data_dir),
            eps=run.eps,
            record=Path(where),
        )
        if guard is None:
            yield bare
        else:
            with open_guard(run, bare.predict, guard, data_dir) as guarded:
                yield replace(
                    bare, predict=_filtered_answers(guarded, bare.predict), notes=lambda: (_guard_note(guarded),)
                )
        return
    if access == "weights":
        raise ConfigError(f"{where}: an endpoint gives answers only; this attack needs the weights")
    shown: AnswerAccess = "label" if access == "label" else "scores"
    settings = with_settings(Client(batch=EXTRACTION_BATCH), client)
    with open_endpoint(str(where), settings, access=shown, transcript=transcript, mac_key=transcript_key()) as endpoint:
        info = endpoint.info
        known = _target_data(str(where), info.parameters, data, data_dir)
        if info.shape not in (None, known.shape) or info.num_classes not in (None, len(known.classes)):
            raise ModelError(
                f"{where}: takes {info.shape} and knows {info.num_classes} classes; "
                f"{known.name} has {list(known.shape)} and {len(known.classes)}"
            )
        yield ExtractionTarget(
            predict=_fill_missing_answers(endpoint),
            model=None,
            data=known,
            record=None,
            eps=_number(info.parameters, "eps", defaults_for(known.name).eps),
            notes=endpoint.notes,
            spec=ModelSpec(
                architecture="small-cnn", settings=to_mapping(SmallCNN()), shape=known.shape, classes=known.classes
            ),
        )


def _filtered_answers(guarded: AnswerFilter, predict: Predict) -> Predict:
    return lambda x: guarded(x, predict(x))


def _guard_note(guarded: AnswerFilter) -> str:
    return f"asked the guarded service; its key decided on {guarded.count:,} images, which are in its log"


def _fill_missing_answers(predict: Predict) -> Predict:
    """Return `predict` with something in place of what was not answered: even scores, or the label of the image before.

    A thief cannot tell why he got no answer, and learns from what he has.
    """

    def answer(x: Tensor) -> Tensor:
        said = predict(x)
        if said.dim() == 2:
            return said.masked_fill(said.isnan().any(1, keepdim=True), 0.0)
        return torch.where(said < 0, said.roll(1).clamp_min(0), said)

    return answer


def _target_data(where: str, parameters: Mapping[str, Any], data: str | None, data_dir: Path | None) -> Dataset:
    """Return the data that the endpoint says it knows, `data` where the thief knows better."""
    name = data or parameters.get("data")
    if not isinstance(name, str):
        raise ConfigError(f"{where}: does not say what data it knows; name them with --data")
    set_aside = _number(parameters, "set_aside", 1.0)
    said = parameters.get("size")
    size = said if isinstance(said, int) and not isinstance(said, bool) else None
    if data is None:
        return load_moved(name, data_dir, set_aside, where, size=size)
    return load(data, data_dir, set_aside, size=size)


def _number(parameters: Mapping[str, Any], name: str, customary: float) -> float:
    """Return the number in (0, 1] that the endpoint says of itself; where it says none such, the customary one."""
    try:
        said = float(parameters[name])
    except (KeyError, TypeError, ValueError):
        return customary
    return said if 0 < said <= 1 else customary
