"""Open a suspect model (a module, a run folder, a file or a URL), its query settings and its identity."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

from wootz import checks
from wootz.config import with_settings
from wootz.errors import ConfigError, InconclusiveError, ModelError
from wootz.keys import owner_secret
from wootz.keys.prf import subkey
from wootz.models import ModelSpec, read_spec, resolved_name
from wootz.store import file_digest, sha256, tensor_bytes
from wootz.suspects.endpoints import Client, Identity, open_endpoint
from wootz.suspects.files import open_file, predictor, weights_of
from wootz.types import Access, AnswerAccess, Predict, Weights

Where: TypeAlias = str | Path
"""A path, or the URL of an endpoint."""

SuspectLike: TypeAlias = "Where | nn.Module | Predict"
"""A path or URL, a module (images in [0, 1] -> logits), or a function (images -> scores [N, K] or labels [N])."""

REMOTE_BUDGET = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryConfig:
    """How a suspect is asked.

    Attributes:
        access: what is seen of it: top-1 `label`, `scores`, or `weights` and scores; an endpoint shows no weights.
        budget: queries a mark may spend; 0 is all, None is all of a file and 500 of an endpoint.
        num_tests: suspects and keys that were tested; log2 of it is subtracted from the bits.
        early: ask triggers one at a time, decoys between, and stop at the bar; None does so at endpoints.
        calibrate: ordinary images on which range, layout, size and class order are found first; 0 takes them as
            they are.
        boundary_queries: with access `label`, queries per mark for the search of decision boundaries; 0 asks for
            labels of the images alone and leaves out marks that need more.
        isolated: read a file in a process of its own, with limits.
        torch_zip: also read zip files of `torch.save`.
        architecture: the network whose weights a file holds, by the name of a factory (`wootz.models.factories`) or of
            a built-in one; its code is run. Empty takes a built-in one that the suspect describes.
        client: `key=value` settings of the client that asks an endpoint, see `wootz.suspects.endpoints.Client`.
    """

    access: Access = "scores"
    budget: int | None = None
    num_tests: int = 1
    early: bool | None = None
    calibrate: int = 0
    boundary_queries: int = 0
    isolated: bool = True
    torch_zip: bool = False
    architecture: str = ""
    client: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.one_of(("scores", "label", "weights"), access=self.access)
        checks.at_least(1, num_tests=self.num_tests)
        checks.at_least(0, calibrate=self.calibrate, boundary_queries=self.boundary_queries, budget=self.budget or 0)
        if self.boundary_queries and self.access != "label":
            raise ConfigError(f"walks = {self.boundary_queries}: is for access = 'label'; scores need no walks")

    def queries(self, *, remote: bool) -> int | None:
        """Return the queries a mark may spend at an endpoint or on a file; None is all."""
        if self.budget is None:
            return REMOTE_BUDGET if remote else None
        return self.budget or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """An open suspect.

    Attributes:
        predict: what answers.
        shape: (C, H, W) that it says it takes, where it says.
        num_classes: that it knows, where it says.
        identity: whom a claim about it names.
        about: what it says of itself, for the record only: no test depends on it.
        remote: whether it is an endpoint.
        notes: what is to be told when all was asked.
        weights: shows its weights, where it has any to show and the access is `weights`.
        accuracy: on the ordinary images that it was calibrated on; None where it was not.
    """

    predict: Predict = field(repr=False)
    shape: tuple[int, int, int] | None
    num_classes: int | None
    identity: Identity
    about: Mapping[str, Any]
    remote: bool
    notes: Callable[[], tuple[str, ...]] = tuple
    weights: Weights | None = field(default=None, repr=False)
    accuracy: float | None = None


def named_network(name: str, registration: Mapping[str, Any], run: Path | None = None) -> ModelSpec | None:
    """Return the network that a verifier names, for the registered images and classes; None if none is named.

    Args:
        name: see `QueryConfig.architecture`.
        registration: what the key was drawn after.
        run: the owner's run folder: if it names the same network, its settings and wrapper hold.

    Raises:
        ConfigError: there is no such network.
    """
    if not name:
        return None
    name, (channels, height, width) = resolved_name(name), registration["shape"]
    own = read_spec(run / "model.json")[0] if run and (run / "model.json").is_file() else None
    if own is not None and own.architecture == name:
        return own
    return ModelSpec(
        architecture=name, settings={}, shape=(channels, height, width), classes=tuple(registration["classes"])
    )


def is_endpoint(where: object) -> bool:
    """Return whether this is a URL."""
    return isinstance(where, str) and where.startswith(("http://", "https://"))


def identify(suspect: Path | nn.Module) -> Identity:
    """Return the name of a suspect on disk or in memory, and the SHA-256 of its weights as safetensors.

    Raises:
        StoreError: there is no such file.
    """
    if isinstance(suspect, nn.Module):
        return Identity(type(suspect).__name__, sha256(tensor_bytes(suspect.state_dict())).removeprefix("sha256:"))
    weights = suspect / "model.safetensors" if suspect.is_dir() else suspect
    return Identity(suspect.name, file_digest(weights).removeprefix("sha256:"))


@contextmanager
def open_suspect_model(
    suspect: SuspectLike,
    query: QueryConfig,
    transcripts: Path,
    network: ModelSpec | None = None,
    *,
    resend: bool = False,
) -> Iterator[Suspect]:
    """Open a suspect.

    Args:
        suspect: see `SuspectLike`.
        query: how it will be queried.
        transcripts: folder for the transcript of an endpoint. The transcript of a stopped call is continued, so that
            no query is spent twice; a finished one gets the time into its name.
        network: the network that the weights in a file are loaded into, see `named_network`.
        resend: whether an endpoint is sent again what it did not answer, see `open_endpoint`.
    """
    if isinstance(suspect, nn.Module):
        yield Suspect(
            predict=_one_row_each(predictor(suspect, query.access), type(suspect).__name__),
            shape=None,
            num_classes=None,
            identity=identify(suspect),
            about={},
            remote=False,
            weights=weights_of(suspect) if query.access == "weights" else None,
        )
    elif isinstance(suspect, str | Path):
        name, remote = str(suspect), is_endpoint(suspect)
        with _endpoint(name, query, transcripts, resend) if remote else _file(Path(name), query, network) as opened:
            yield opened
    else:
        name = getattr(suspect, "__name__", type(suspect).__name__)
        yield Suspect(
            predict=_one_row_each(suspect, name),
            shape=None,
            num_classes=None,
            identity=Identity(name, ""),
            about={},
            remote=False,
        )


def _one_row_each(predict: Predict, name: str) -> Predict:
    """Return `predict`, which must answer each image with one row of scores or one label.

    Raises:
        ModelError: an answer of another form. A lost row would shift all others, or count as a miss.
    """

    def answer(x: Tensor) -> Tensor:
        answers = predict(x)
        form = list(answers.shape) if isinstance(answers, Tensor) else type(answers).__name__
        if not isinstance(answers, Tensor) or answers.dim() not in (1, 2) or len(answers) != len(x):
            raise ModelError(
                f"{name}: answered {len(x)} images with {form}; the answer must be a tensor of scores [{len(x)}, K] or "
                f"labels [{len(x)}], -1 where there is none"
            )
        return answers

    return answer


def suspect_without_answers(path: Path) -> Suspect:
    """Return the suspect in a file that could not be run, for the record."""

    def predict(_: Tensor) -> Tensor:
        raise InconclusiveError(f"{path}: could not be run")

    return Suspect(predict=predict, shape=None, num_classes=None, identity=identify(path), about={}, remote=False)


@contextmanager
def _file(path: Path, query: QueryConfig, network: ModelSpec | None) -> Iterator[Suspect]:
    with open_file(
        path, query.access, isolated=query.isolated, allow_torch_zip=query.torch_zip, network=network
    ) as opened:
        yield Suspect(
            predict=opened.predict,
            shape=opened.spec.shape,
            num_classes=len(opened.spec.classes),
            identity=Identity(path.name, opened.digest.removeprefix("sha256:")),
            about=opened.about,
            remote=False,
            weights=opened.weights,
            notes=lambda: () if all(opened.isolation) or not query.isolated else (opened.isolation.summary,),
        )


@contextmanager
def _endpoint(url: str, query: QueryConfig, place: Path, resend: bool) -> Iterator[Suspect]:
    shown: AnswerAccess = "label" if query.access == "label" else "scores"
    name = f"transcript-{hashlib.sha256(url.encode()).hexdigest()[:12]}-{shown}"
    transcript = place / f"{name}.jsonl"
    place.mkdir(parents=True, exist_ok=True)
    with open_endpoint(
        url,
        with_settings(Client(), query.client),
        access=shown,
        transcript=transcript,
        mac_key=transcript_key(),
        resend=resend,
    ) as endpoint:
        info, data = endpoint.info, endpoint.info.parameters.get("data")
        yield Suspect(
            predict=endpoint,
            shape=info.shape,
            num_classes=info.num_classes,
            identity=endpoint.identity,
            about={"data": data} if isinstance(data, str) and len(data) <= 64 else {},
            remote=True,
            notes=endpoint.notes,
        )
        digest = endpoint.transcript_digest
    transcript.rename(place / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{digest.removeprefix('sha256:')[:8]}.jsonl")


def transcript_key() -> bytes:
    """Return the key that transcripts are authenticated with, so that nobody else's file is resumed."""
    return subkey(owner_secret(), "transcript")


def fitting(wanted: Mapping[str, Any], suspect: Suspect, whose: str = "the key is for") -> Suspect:
    """Return a suspect that takes the wanted images and knows as many classes, which each answer is checked for.

    Args:
        wanted: the `shape` of images and the `classes`, as in a registration; without classes, any number fits.
        suspect: the suspect.
        whose: what wants them, for messages.

    Raises:
        ModelError: it takes other images or knows other classes; at a query, if only its answers show it.
    """
    shape, classes = tuple(wanted["shape"]), len(wanted["classes"])
    other_images = suspect.shape is not None and suspect.shape != shape
    other_classes = classes > 0 and suspect.num_classes not in (None, classes)
    if other_images or other_classes:
        raise _misfit(wanted, suspect, suspect.num_classes, whose, other_images=other_images)

    def answer(x: Tensor) -> Tensor:
        answers = suspect.predict(x)
        if answers.dim() == 2 and answers.shape[1] != (classes or answers.shape[1]) and not answers.isnan().all():
            raise _misfit(wanted, suspect, answers.shape[1], whose)
        return answers

    return replace(suspect, predict=answer)


def _misfit(
    wanted: Mapping[str, Any], suspect: Suspect, num_classes: int | None, whose: str, *, other_images: bool = False
) -> ModelError:
    takes = "images of any shape" if suspect.shape is None else f"images {list(suspect.shape)}"
    shape, classes = wanted["shape"], len(wanted["classes"])
    hints = ["finds sizes and layouts"] if other_images else []
    hints += ["leaves out classes in excess"] if (num_classes or 0) > classes > 0 else []
    return ModelError(
        f"{suspect.identity.name}: takes {takes} and knows {num_classes} classes; {whose} images {list(shape)}"
        f"{f' and {classes} classes' if classes else ''}{'; --calibrate 200 ' + ' and '.join(hints) if hints else ''}"
    )
