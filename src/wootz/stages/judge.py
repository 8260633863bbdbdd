"""Re-check a claim without trusting who wrote it: signatures, time, commitments, images, labels; then ask anew."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from torch import Tensor, nn

from wootz import __version__
from wootz.errors import Error, SignatureError
from wootz.marks import weights_digest
from wootz.models import read_described
from wootz.ownership import (
    Key,
    Statement,
    opened,
    opened_keys,
    read_public,
    read_roots,
    registration_digest,
    signed,
    signing_key,
    stamped_at,
)
from wootz.records import Cell, to_json
from wootz.stages.claim import CLAIM, plain_strings
from wootz.stages.register import REGISTERED
from wootz.stages.run import Clock
from wootz.stages.suspects import identify
from wootz.stages.verify import check_suspect, verdict_cell
from wootz.store import file_digest, read_bytes, read_tensors, sha256, write_bytes
from wootz.types import Predict, Tell
from wootz.verify import bar_of, predictor

JUDGEMENT = "urn:wootz:judgement:1"


class Proven(NamedTuple):
    """What a claim proves before the suspect is asked: its keys, its panel, since when they are fixed, remarks."""

    statement: Statement
    registration: Mapping[str, Any]
    keys: Mapping[str, Key]
    panel: tuple[Predict, ...]
    since: datetime | None
    notes: tuple[str, ...]


def judge_claim(
    certificate: Path,
    suspect: Path,
    *,
    pinned: Path | None = None,
    authorities: Path | None = None,
    out: Path | None = None,
    tell: Tell = lambda *_: None,
) -> Cell:
    """Re-derive all that a certificate claims, ask the suspect anew, and sign the judge's own statement.

    A claim whose bytes, signatures, commitments or order do not hold is INVALID CLAIM, a value and no error.

    Args:
        certificate: as `claim_suspect` wrote it, its material beside it.
        suspect: what is asked; the claim must be about it to be upheld.
        pinned: the claimant's public key (PEM), from a source that the judge trusts; None says whose key it is only.
        authorities: certificates (PEM) of the time-stamp authorities that the judge trusts.
        out: where the judge's signed statement goes; None writes none.
        tell: told what is going on.

    Raises:
        StoreError: there is no such certificate or suspect.
    """
    time, data, identity = Clock(), read_bytes(certificate), identify(suspect)
    try:
        proven = examine(data, certificate.with_suffix(".safetensors"), pinned=pinned, authorities=authorities)
    except SignatureError as error:
        cell = _invalid(suspect, f"{certificate.name}: {error}", time.seconds)
    else:
        test = proven.statement.predicate["test"]
        bar = bar_of(stamped=proven.since is not None)
        tell("asking the suspect", 0.0)
        verdict = check_suspect(
            proven.keys, proven.registration, suspect, proven.panel, access=test["access"], bar=bar,
            budget=int(test["budget"]) if test["budget"] else None, tries=test["tries"],
        )  # fmt: skip
        cell = verdict_cell(verdict, suspect, time.seconds)
        cell = replace(cell, notes=(*cell.notes, *proven.notes))
        if identity.digest not in proven.statement.subject.values():
            cell = _about_another(cell, proven.statement)
    if out is not None:
        told = plain_strings({k: v for k, v in to_json(cell).items() if k not in ("seconds", "seed")})
        predicate = {"wootz": __version__, "claim": sha256(data), "found": told} | {
            "written": datetime.now(UTC).isoformat(timespec="seconds")
        }
        write_bytes(out, signed(signing_key(), {identity.name: identity.digest}, JUDGEMENT, predicate))
    return cell


def examine(data: bytes, material: Path, *, pinned: Path | None = None, authorities: Path | None = None) -> Proven:
    """Check everything about a claim that needs no suspect.

    Raises:
        SignatureError: something does not hold; says what.
    """
    claim = opened(data, CLAIM)
    if pinned is not None and claim.signer != read_public(pinned):
        raise SignatureError(f"is signed by {claim.signer[:16]}..., not by the key in {pinned}")
    try:
        told = claim.predicate
        first = opened(rfc8785.dumps(told["registered"]), REGISTERED)
        registration, token = first.predicate["registration"], base64.b64decode(told["token"], validate=True)
        if not claim.signer == first.signer == registration["owner"]:
            raise SignatureError("claim and registration are not signed by the registered owner")
        tranches = max(len(mark["tranches"]) for mark in registration["marks"].values())
        if told["test"]["tries"] < tranches or told["opened"].keys() != registration["marks"].keys():
            raise SignatureError("it leaves out marks or tries; all that was registered counts")
        since, notes = _since(token, registration_digest(registration), authorities)
        if not material.is_file() or file_digest(material) != told["material"]:
            raise SignatureError(f"its material {material.name} is missing, or not the one that was signed")
        tensors = read_tensors(material)
        keys = opened_keys(registration, token, told["opened"], tensors)
        panel = _panel(told["panel"], tensors, registration["panel"])
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise SignatureError(f"is not a whole claim ({' '.join(repr(error).split())})") from error
    if pinned is None:
        notes = (*notes, f"signed by the holder of {claim.signer}; who that is, this check does not say")
    return Proven(claim, registration, keys, panel, since, notes)


def _since(token: bytes, digest: bytes, authorities: Path | None) -> tuple[datetime | None, tuple[str, ...]]:
    """Return the trusted time before the keys, where there is one, and what to say of it."""
    if not token:
        return None, ("no time token: the bar is 80 bits",)
    if authorities is None:
        return None, ("its time token was not checked (no authorities were named): the bar is 80 bits",)
    since = stamped_at(token, digest, read_roots(authorities))
    return since, (f"registered no later than {since.isoformat(timespec='seconds')}",)


def _panel(described: list[dict[str, str]], tensors: Mapping[str, Tensor], digests: list[str]) -> tuple[Predict, ...]:
    models: list[nn.Module] = []
    for member in described:
        prefix = f"panel/{member['name']}/"
        weights = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        try:
            models.append(read_described(json.loads(member["model"]), weights, prefix))
        except Error as error:
            raise SignatureError(f"its panel can not be built ({error})") from error
    if [weights_digest(model) for model in models] != digests:
        raise SignatureError("its panel is not the one that was registered")
    return tuple(predictor(model) for model in models)


def _about_another(cell: Cell, claim: Statement) -> Cell:
    """A claim is upheld for its own subject only."""
    note = f"the claim is about {', '.join(claim.subject)}, other weights than these"
    upheld = cell.verdict == "KEY-DEPENDENT"
    return replace(cell, verdict="INVALID CLAIM" if upheld else cell.verdict, notes=(*cell.notes, note))


def _invalid(suspect: Path, reason: str, seconds: float) -> Cell:
    return Cell(
        data="unknown", suspect=suspect.name, kind="unknown", verdict="INVALID CLAIM", notes=(reason,), seconds=seconds
    )
