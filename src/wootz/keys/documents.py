"""Schemas of signed files: one strict schema per document, checked before any of its content is used.

Types are exact (`true` is not 1, 1.0 is not 1), unknown fields are refused, and sizes are bounded, so that a file
written by a claimant cannot be read in two ways and cannot cause unbounded allocations.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wootz.errors import SignatureError
from wootz.keys.registration import MAX_CLASSES, REGISTRATION_PROTOCOL

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=10_000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]
Count = Annotated[int, Field(ge=0, le=1 << 31)]
Positive = Annotated[int, Field(ge=1, le=1 << 31)]
Token = Annotated[str, Field(max_length=1 << 21)]
Access = Literal["scores", "label", "walks", "weights"]
Fact = Text | int | list[int]

_Document = TypeVar("_Document", bound=BaseModel)


class Strict(BaseModel):
    """Base of all documents: exact types, no unknown fields, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class TrancheEntry(Strict):
    """The commitment of a tranche, and the Merkle root over its rows if the mark has rows."""

    commitment: Digest
    root: Digest | None = None


class MarkEntry(Strict):
    """The registered description of one mark."""

    kind: Literal["labels", "direction", "half", "answers", "weights"]
    facts: dict[str, Fact] = Field(max_length=32)
    tranches: list[TrancheEntry] = Field(min_length=1, max_length=10_000)
    tensors: dict[str, Digest] = Field(max_length=32)


class WalkEntry(Strict):
    """See `wootz.keys.BoundarySearchTerms`."""

    eps: Text
    norm: Literal["Linf", "L2"]
    steps: Annotated[int, Field(ge=1, le=100)]
    stops: list[Annotated[str, Field(pattern=r"^\d{1,4}/\d{1,4}$")]] = Field(min_length=1, max_length=100)
    queries: Annotated[int, Field(ge=1, le=1_000_000)]


class OptionsEntry(Strict):
    """See `wootz.keys.ClaimOptions`."""

    accesses: list[Access] = Field(min_length=1, max_length=4)
    budgets: list[Count] = Field(min_length=1, max_length=100)


class TimestampEntry(Strict):
    """Requirements on the time token, see `wootz.keys.registration.TimestampTerms`."""

    policy: Annotated[str, Field(pattern=r"^(\d+(\.\d+)+)?$", max_length=200)]


class Registration(Strict):
    """The public registration of a run, see `wootz.keys.registration`."""

    protocol: Literal["wootz-registration/5"]
    classes: list[Text] = Field(min_length=2, max_length=MAX_CLASSES)
    shape: list[Annotated[int, Field(ge=1, le=1 << 16)]] = Field(min_length=3, max_length=3)
    panel: list[Text] = Field(max_length=100)
    owner: Text
    marks: dict[Name, MarkEntry] = Field(min_length=1, max_length=32)
    options: OptionsEntry
    walk: WalkEntry | None = None
    timestamp: TimestampEntry | None = None
    root: Digest | None = None


class Seal(Strict):
    """A chain hash of the guard's log, the number of images in the log up to it, and a time token over it."""

    head: Hex32
    lines: Count
    token: Token


class RegisteredModel(Strict):
    """The predicate that `register` signs: a registration, its time token, and the digest of the model."""

    registration: dict[str, Any]
    digest: Hex32
    token: Token
    measured: dict[str, Text] = Field(max_length=32)
    evidence: dict[str, Text] = Field(max_length=32)


class Opening(Strict):
    """The tranche of one mark that a claim reveals, with its secret and salt."""

    tranche: Count
    secret: Hex32
    salt: Hex32


class GuardLog(Strict):
    """The guard's log in a claim, and its seals, oldest first."""

    log: Digest
    seals: list[Seal] = Field(min_length=1, max_length=10_000)


class Test(Strict):
    """The test settings of a claim. `access` and `budget` are chosen from the registered options."""

    access: Access
    budget: Count
    calibrate: Count
    tries: Positive


class PanelMember(Strict):
    """An independent model's name and description (`model.json`)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    model: Annotated[str, Field(max_length=1 << 20)]


class Claim(Strict):
    """The predicate of a claim."""

    wootz: Text
    registered: dict[str, Any]
    registered_token: Token
    opened: dict[Name, Opening] = Field(min_length=1, max_length=32)
    material: Digest
    guard: GuardLog | None = None
    panel: list[PanelMember] = Field(max_length=100)
    test: Test
    found: dict[str, Any]
    environment: dict[str, Text] = Field(max_length=32)
    written: Text


class Judgement(Strict):
    """The predicate of a judge's statement.

    `opened` maps marks to the commitments that the claim opened, `asked` maps the queried suspect to its digest, and
    `seed` is the seed of the random keys of the null check.
    """

    wootz: Text
    claim: Digest
    opened: dict[Name, Digest]
    asked: dict[Text, Hex32]
    seed: Hex32
    transcripts: list[Digest]
    found: dict[str, Any]
    written: Text


def read_document(document: type[_Document], value: Mapping[str, Any]) -> _Document:
    """Check a parsed JSON object against its schema.

    Raises:
        SignatureError: a field does not fit; names the first one.
    """
    try:
        return document.model_validate_json(json.dumps(value))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise SignatureError(f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}") from error
    except (ValueError, RecursionError) as error:
        raise SignatureError(f"is not JSON ({' '.join(str(error).split())})") from error


def read_registration(value: Mapping[str, Any]) -> Registration:
    """Check a registration against its schema.

    Raises:
        SignatureError: the registration has another protocol, or a field does not fit.
    """
    protocol = value.get("protocol") if isinstance(value, Mapping) else None
    if protocol != REGISTRATION_PROTOCOL:
        raise SignatureError(
            f"the registration is of another protocol, {protocol!r}; this version reads {REGISTRATION_PROTOCOL}"
        )
    return read_document(Registration, value)
