"""What a liar needs: runs of his own making, files signed again after a change, logs that he wrote himself."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from authority import serving
from commands import CommandResult
from court import Court, label_material
from wootz.data import Dataset
from wootz.keys import (
    AnswerKey,
    OwnerKeys,
    RegisteredMaterial,
    draw_keys,
    public_hex,
    sign_statement,
    signing_key,
    verify_statement,
    write_keys,
)
from wootz.keys.answer_log import chain_hash, log_entry, log_header
from wootz.keys.keyed_answers import digest_function, keyed_answer
from wootz.keys.registration import ClaimOptions
from wootz.keys.timestamps import timestamp_request
from wootz.models import ModelSpec, write_model
from wootz.statistics.queries import to_log_scores
from wootz.store import canonical, file_digest, read_tensors, write_tensors
from wootz.suspects.files import predictor
from wootz.watermarks import weights_digest
from wootz.workflows.claim import CLAIM
from wootz.workflows.guard_log import LOG
from wootz.workflows.register import REGISTERED

ONE_WAY = ClaimOptions(("label",), (0,))
"""A liar registers one access and one budget, so that nothing comes off his bits for choices."""


class Command(Protocol):
    """`wootz WORDS`, as a person calls it."""

    def __call__(self, *words: object) -> CommandResult: ...


class Judge(Protocol):
    """`wootz judge CLAIM SUSPECT --authorities ... WORDS`."""

    def __call__(self, claim: Path, suspect: object, *words: object) -> CommandResult: ...


def bits_of(said: CommandResult) -> float:
    """Return the bits that a command printed as JSON."""
    return float(str(said.json["bits"]))


def notes_of(said: CommandResult) -> str:
    return " ".join(map(str, said.json["notes"]))  # type: ignore[call-overload]


def resigned(
    claim: Path,
    change: Callable[[dict[str, Any]], Any] = lambda _: None,
    *,
    first: Callable[[dict[str, Any]], Any] | None = None,
    tensors: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
    subject: Mapping[str, str] | None = None,
) -> None:
    """Change a claim, the registration in it (`first`) or its tensors, and sign all of it as whoever signs now."""
    told = verify_statement(claim.read_bytes(), CLAIM)
    predicate = json.loads(json.dumps(told.predicate))
    if first is not None:
        inner = verify_statement(canonical(predicate["registered"]), REGISTERED)
        stamped = json.loads(json.dumps(inner.predicate))
        first(stamped)
        predicate["registered"] = json.loads(sign_statement(signing_key(), inner.subject, REGISTERED, stamped))
        predicate["registered_token"] = ""
    if tensors is not None:
        material = claim.with_suffix(".safetensors")
        write_tensors(material, tensors(read_tensors(material)))
        predicate["material"] = file_digest(material)
    change(predicate)
    claim.write_bytes(sign_statement(signing_key(), subject or told.subject, CLAIM, predicate))


def run_of(place: Path, owner_keys: OwnerKeys, model: nn.Module, panel: Sequence[nn.Module], spec: ModelSpec) -> Path:
    """Write a run folder without `wootz protect`."""
    about = {"data": "mnist-5k", "set_aside": 1.0, "eps": 0.1, "seed": 4, "kind": "protected"}
    for name, member in zip(("robust", "plain"), panel, strict=True):
        write_model(place / "panel" / name, member, spec, about)
    write_keys(place, owner_keys)
    write_model(place, model, spec, about)
    return place


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """A dishonest owner who signs with a key of his own.

    Attributes:
        court: whose authority he asks for time tokens; all trust it.
        digits: the data set that he registers.
        panel: reference models that know nothing: they foresee nothing and veto nothing.
        spec: the architecture of every model.
        fitted: images fitted to labels of his choice: pixels, originals, their classes, the labels.
        accused: a model on disk that never met a key of his.
        wootz: the command line.
        place: his folder.
    """

    court: Court
    digits: Dataset
    panel: Sequence[nn.Module]
    spec: ModelSpec
    fitted: tuple[Tensor, Tensor, Tensor, Tensor]
    accused: Path
    wootz: Command
    place: Path

    @property
    def materials(self) -> dict[str, RegisteredMaterial]:
        """His fitted images as `triggers`."""
        return {"triggers": label_material(*self.fitted[:3])}

    def draw(
        self,
        materials: Mapping[str, RegisteredMaterial] | None = None,
        secret: bytes = b"\4" * 32,
        *,
        stamped: bool = True,
        stamp: Callable[[bytes], bytes] | None = None,
        options: ClaimOptions | None = ONE_WAY,
        policy: str = "",
    ) -> OwnerKeys:
        """Register materials and draw their keys, with a token of the trusted authority or by `stamp`, or with none."""
        trusted = partial(_trusted_token, self.court, policy)
        return draw_keys(
            secret,
            self.materials if materials is None else materials,
            classes=self.digits.classes,
            shape=self.digits.shape,
            owner=public_hex(signing_key()),
            panel=[weights_digest(model) for model in self.panel],
            options=options,
            policy=policy,
            fetch_token=(stamp or trusted) if stamped else None,
        )

    def run(self, owner_keys: OwnerKeys, name: str = "run", model: nn.Module | None = None) -> Path:
        """Write a run folder; its model is one of the panel unless given."""
        return run_of(self.place / name, owner_keys, model or self.panel[0], self.panel, self.spec)

    def claim(
        self,
        owner_keys: OwnerKeys,
        *words: object,
        name: str = "run",
        suspect: object = None,
        codes: Sequence[int] = (0, 1),
    ) -> Path:
        """Register a run with these keys, and claim a suspect by its labels: the accused model unless given."""
        run = self.run(owner_keys, name)
        claim = run / "c.json"
        assert self.wootz("register", run).code == 0
        said = self.wootz("claim", run, suspect or self.accused, "--out", claim, "--access", "label", *words)
        assert said.code in codes
        return claim


def _trusted_token(court: Court, policy: str, digest: bytes) -> bytes:
    return court.authority.stamp(timestamp_request(digest, policy=policy))


def write_log(
    run: Path, key: AnswerKey, shape: tuple[int, int, int], gap: float, pixels: Tensor, first: Tensor, second: Tensor
) -> None:
    """Write a guard's log with images and pairs of classes of the liar's choice, as `AnswerFilter` would."""
    digests = digest_function(key, shape)(pixels)
    entries, known, chain, lines = [log_header(key, shape, gap)], set(), "", []
    for image, digest, one, two in zip(pixels, digests, first.tolist(), second.tolist(), strict=True):
        if digest not in known:
            entries.append(log_entry(image, digest, one, two, keyed_answer(key, digest, one, two)))
        known.add(digest)
    for fields in entries:
        chain = chain_hash(chain, fields)
        lines.append(json.dumps(fields | {"chain": chain}))
    (run / LOG).parent.mkdir(exist_ok=True)
    (run / LOG).write_text("\n".join(lines) + "\n")


def coins(key: AnswerKey, shape: tuple[int, int, int], pixels: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return where the key prefers `second`, bool [n], as its owner knows before anybody asks."""
    made = zip(digest_function(key, shape)(pixels), first.tolist(), second.tolist(), strict=True)
    return torch.tensor([keyed_answer(key, digest, one, two) == two for digest, one, two in made])


def two_likeliest(model: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the classes that a model finds likeliest and second likeliest, int64 [n] each."""
    first, second = predictor(model)(pixels.float() / 255).topk(2, dim=1).indices.T
    return first, second


def lean(predict: Callable[[Tensor], Tensor], pixels: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return how far a model leans to `second` and away from `first` [n]."""
    scores = to_log_scores(predict(pixels.float() / 255))
    return (scores.gather(1, second[:, None]) - scores.gather(1, first[:, None])).flatten()


def sealed(wootz: Command, court: Court, run: Path) -> None:
    """`wootz register RUN --tsa ...`: seal the log."""
    with serving(court.authority) as url:
        assert wootz("register", run, "--tsa", url).code == 0


def later() -> str:
    """Return a time by which every log of these tests was sealed."""
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def token_of(registered: dict[str, Any], token: bytes) -> None:
    """Put another time token into a signed registration."""
    registered["token"] = base64.b64encode(token).decode()
