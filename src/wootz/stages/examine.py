"""Check everything about a claim that needs no suspect: signatures, time, commitments, images, labels, panel."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from cryptography.x509 import Certificate
from torch import Tensor, nn

from wootz.errors import ConfigError, Error, SignatureError, StoreError
from wootz.marks import weights_digest
from wootz.ownership import (
    Key,
    Statement,
    marks_opened,
    opened,
    opened_keys,
    read_public,
    read_roots,
    registration_digest,
    stamped_at,
)
from wootz.stages.claim import CLAIM
from wootz.stages.guarding import with_log, without_guard
from wootz.stages.panel import Panel, check_walks, seated
from wootz.stages.register import REGISTERED
from wootz.store import file_digest, read_tensors
from wootz.verify import Limits, described_network


class Proven(NamedTuple):
    """What a claim proves before the suspect is asked.

    Attributes:
        claim: the signed statement.
        registration: what was fixed before the keys.
        model: SHA-256 of the weights that were registered, in hexadecimal.
        keys: what was opened, by mark.
        panel: the registered independent models.
        since: trusted time before the keys, where there is one.
        notes: remarks for a reader.
    """

    claim: Statement
    registration: Mapping[str, Any]
    model: str
    keys: Mapping[str, Key]
    panel: Panel
    since: datetime | None
    notes: tuple[str, ...]


def examine(
    data: bytes,
    material: Path,
    *,
    pinned: Path | None = None,
    authorities: Path | None = None,
    suspect_since: datetime | None = None,
) -> Proven:
    """Check everything about a claim that needs no suspect.

    Args:
        data: the certificate.
        material: its images and panel.
        pinned: the claimant's public key (PEM), from a source that the judge trusts.
        authorities: certificates (PEM) of time-stamp authorities that the judge trusts.
        suspect_since: before this time the suspect did not exist, as the judge is satisfied; a guard's log that was
            sealed earlier counts then.

    Raises:
        SignatureError: something does not hold; says what.
    """
    trusted = read_public(pinned) if pinned else None
    roots = read_roots(authorities) if authorities else None
    claim = opened(data, CLAIM)
    if trusted is not None and claim.signer != trusted:
        raise SignatureError(f"is signed by {claim.signer[:16]}..., not by the key in {pinned}")
    try:
        told = claim.predicate
        first = opened(rfc8785.dumps(told["registered"]), REGISTERED)
        registration, token = first.predicate["registration"], base64.b64decode(first.predicate["token"], validate=True)
        if not claim.signer == first.signer == registration["owner"]:
            raise SignatureError("claim and registration are not signed by the registered owner")
        tranches = max(len(mark["tranches"]) for mark in registration["marks"].values())
        (tranche,) = {entry["tranche"] for entry in told["opened"].values()}
        if told["test"]["tries"] < tranches or sorted(told["opened"]) != sorted(marks_opened(registration, tranche)):
            raise SignatureError("it leaves out marks or tries; all that was registered counts")
        since, notes = _since(token, registration_digest(registration), roots)
        if not material.is_file() or file_digest(material) != told["material"]:
            raise SignatureError(f"its material {material.name} is missing, or not the one that was signed")
        (model,) = first.subject.values()
        tensors = read_tensors(material)
        keys = opened_keys(registration, token, told["opened"], tensors)
        keys, remarks = _guard(keys, first.predicate, told, material, roots, suspect_since)
        try:
            panel = seated(_panel(told["panel"], tensors, registration["panel"]), registration)
            check_walks(registration, told["test"].get("walks", 0))
        except ConfigError as error:
            raise SignatureError(f"it can not be tested as it says ({error})") from error
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error) as error:
        raise SignatureError(f"is not a whole claim ({' '.join(repr(error).split())})") from error
    notes = (*notes, *remarks)
    if pinned is None:
        notes = (*notes, f"signed by the holder of {claim.signer}; who that is, this check does not say")
    return Proven(claim, registration, model, keys, panel, since, notes)


def _since(token: bytes, digest: bytes, roots: Sequence[Certificate] | None) -> tuple[datetime | None, tuple[str, ...]]:
    """Return the trusted time before the keys, where there is one, and what to say of it."""
    if not token:
        return None, ("no time token: the bar is 80 bits",)
    if roots is None:
        return None, ("its time token was not checked (no authorities were named): the bar is 80 bits",)
    since = stamped_at(token, digest, roots)
    return since, (f"registered no later than {since.isoformat(timespec='seconds')}",)


def _guard(
    keys: dict[str, Key],
    registered: Mapping[str, Any],
    told: Mapping[str, Any],
    material: Path,
    roots: Sequence[Certificate] | None,
    suspect_since: datetime | None,
) -> tuple[dict[str, Key], tuple[str, ...]]:
    """Return the keys with the guard's log, where that was sealed before the suspect existed, and what to say of it."""
    if not told["guard"]:
        return without_guard(keys), ()
    log = material.with_suffix(".guard.jsonl")
    if not log.is_file() or file_digest(log) != told["guard"]:
        raise SignatureError(f"its log {log.name} is missing, or not the one that was signed")
    if roots is None or suspect_since is None:
        return without_guard(keys), ("the guard does not count: nobody says since when the suspect exists",)
    sealed = registered["guard"]
    token = base64.b64decode(sealed["token"], validate=True)
    when = stamped_at(token, bytes.fromhex(sealed["head"]), roots)
    if when >= suspect_since:
        return without_guard(keys), (
            f"the guard does not count: its log was sealed at {when}, after the suspect was made",
        )
    try:
        found = with_log(keys, log, sealed=sealed["head"])
    except StoreError as error:
        raise SignatureError(f"its guard's log does not hold ({error})") from error
    return found, (f"the guard counts on condition that the suspect did not exist before {when.isoformat()}",)


def _panel(described: list[dict[str, str]], tensors: Mapping[str, Tensor], digests: list[str]) -> list[nn.Module]:
    models: list[nn.Module] = []
    for member in described:
        prefix = f"panel/{member['name']}/"
        weights = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        try:
            models.append(described_network(member["model"].encode(), weights, prefix, Limits()))
        except Error as error:
            raise SignatureError(f"its panel can not be built ({error})") from error
    if [weights_digest(model) for model in models] != digests:
        raise SignatureError("its panel is not the one that was registered")
    return models
