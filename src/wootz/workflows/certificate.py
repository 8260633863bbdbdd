"""Check everything about a claim that needs no suspect: signatures, times, commitments, images, labels, panel, log."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import rfc8785
from cryptography.x509 import Certificate
from torch import Tensor, nn

from wootz.errors import ConfigError, Error, SignatureError, StoreError
from wootz.keys import (
    AnswerKey,
    Key,
    Statement,
    read_public,
    read_roots,
    rederive_keys,
    registration_digest,
    revealed_marks,
    verify_statement,
    verify_token,
)
from wootz.keys import documents as doc
from wootz.keys.answer_log import LogLength, log_length, read_log
from wootz.keys.documents import read_document, read_registration
from wootz.store import file_digest, read_tensors
from wootz.suspects.files import Limits, described_network
from wootz.watermarks import weights_digest
from wootz.workflows.claim import CLAIM, NETWORK_FIELDS, WRAPPER_FIELD, check_options, choices
from wootz.workflows.guard_log import with_log, without_guard
from wootz.workflows.reference_models import ReferenceModels, reference_models
from wootz.workflows.register import REGISTERED
from wootz.workflows.suspects import QueryConfig


class SealedLog(NamedTuple):
    """The guard's log as it was sealed before the suspect existed.

    Attributes:
        mark: whose log it is.
        gap: between the two highest scores, up to which the served model counted as unsure.
        length: how much of it counts, and the bits that come off.
        sealed: the time of the seal.
    """

    mark: str
    gap: float
    length: LogLength
    sealed: datetime


class VerifiedClaim(NamedTuple):
    """What a claim proves before the suspect is asked.

    Attributes:
        claim: the signed statement.
        content: its predicate, checked.
        registration: what was fixed before the keys.
        model: SHA-256 of the weights that were registered, in hexadecimal.
        keys: what was opened, by mark.
        panel: the registered independent models.
        since: trusted time before the keys, where there is one.
        registered: trusted time of the registered model, where there is one.
        log: the guard's, where it counts.
        notes: remarks for a reader.
    """

    claim: Statement
    content: doc.Claim
    registration: Mapping[str, Any]
    model: str
    keys: Mapping[str, Key]
    panel: ReferenceModels
    since: datetime | None
    registered: datetime | None
    log: SealedLog | None
    notes: tuple[str, ...]

    def query(self) -> QueryConfig:
        """Return how the claimant tested the suspect, with all that the claim could choose from as tries."""
        test = self.content.test
        boundary_queries = self.registration["walk"]["queries"] if test.access == "walks" else 0
        access = "label" if test.access == "walks" else test.access
        return QueryConfig(
            access=access,
            budget=test.budget,
            calibrate=test.calibrate,
            boundary_queries=boundary_queries,
            num_tests=test.tries * choices(self.registration),
        )


def verify_certificate(
    data: bytes,
    material: Path,
    *,
    pinned: Path | None = None,
    authorities: Path | None = None,
    suspect_since: datetime | None = None,
) -> VerifiedClaim:
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
    claim = verify_statement(data, CLAIM)
    if trusted is not None and claim.signer != trusted:
        raise SignatureError(f"is signed by {claim.signer[:16]}..., not by the key in {pinned}")
    try:
        content = read_document(doc.Claim, claim.predicate)
        if len(claim.subject) != 1:
            raise SignatureError(
                f"is about {len(claim.subject)} suspects; a claim opens its secrets against one suspect"
            )
        statement = rfc8785.dumps(content.registered)
        first = verify_statement(statement, REGISTERED)
        model = read_document(doc.RegisteredModel, first.predicate)
        registration, token = model.registration, base64.b64decode(model.token, validate=True)
        read_registration(registration)
        if not claim.signer == first.signer == registration["owner"]:
            raise SignatureError("claim and registration are not signed by the registered owner")
        tranches = {entry.tranche for entry in content.opened.values()}
        if len(tranches) != 1 or sorted(content.opened) != sorted(revealed_marks(registration, *tranches)):
            raise SignatureError("it leaves out marks; all that were registered with the tranche count")
        since, notes = _since(token, registration, roots)
        registered, more = _registered(base64.b64decode(content.registered_token, validate=True), statement, roots)
        if not material.is_file() or file_digest(material) != content.material:
            raise SignatureError(f"its material {material.name} is missing, or not the one that was signed")
        (weights,) = first.subject.values()
        tensors = read_tensors(material)
        opening = {name: entry.model_dump() for name, entry in content.opened.items()}
        keys = rederive_keys(registration, token, opening, tensors)
        keys, log, remarks = _guard(keys, content, registration, material, roots, suspect_since)
        try:
            panel = reference_models(_panel(content.panel, tensors, registration["panel"]), registration)
            proven = VerifiedClaim(
                claim, content, registration, weights, keys, panel, since, registered, log, (*notes, *more, *remarks)
            )
            check_options(registration, proven.query(), remote=False)
        except ConfigError as error:
            raise SignatureError(f"it cannot be tested as it says ({error})") from error
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        IndexError,
        ArithmeticError,
        StoreError,
        binascii.Error,
    ) as error:
        raise SignatureError(f"is not a whole claim ({' '.join(repr(error).split())})") from error
    if not registration["panel"]:
        note = "no independent model was registered with the key: only the judge's own ones veto"
        proven = proven._replace(notes=(*proven.notes, note))
    if pinned is None:
        note = f"signed by the holder of {claim.signer}; who that is, this check does not say"
        proven = proven._replace(notes=(*proven.notes, note))
    return proven


def _since(
    token: bytes, registration: Mapping[str, Any], roots: Sequence[Certificate] | None
) -> tuple[datetime | None, tuple[str, ...]]:
    """Return the trusted time before the keys, where there is one, and what to say of it."""
    terms = registration.get("timestamp")
    if terms is None:
        return None, ("no time token: the bar is 80 bits",)
    if not token:
        raise SignatureError("the time token that the registration names is missing")
    if roots is None:
        return None, ("its time token was not checked (no authorities were named): the bar is 80 bits",)
    since = verify_token(token, registration_digest(registration), roots, policy=terms["policy"])
    return since, (f"registered no later than {since.isoformat(timespec='seconds')}",)


def _registered(
    token: bytes, statement: bytes, roots: Sequence[Certificate] | None
) -> tuple[datetime | None, tuple[str, ...]]:
    """Return the trusted time of the registered model, where there is one, and what to say of it."""
    if not token or roots is None:
        return None, ()
    when = verify_token(token, statement, roots)
    return when, (f"the registered model is no later than {when.isoformat(timespec='seconds')}",)


def _guard(
    keys: dict[str, Key],
    content: doc.Claim,
    registration: Mapping[str, Any],
    material: Path,
    roots: Sequence[Certificate] | None,
    suspect_since: datetime | None,
) -> tuple[dict[str, Key], SealedLog | None, tuple[str, ...]]:
    """Return the keys with the guard's log, where that was sealed before the suspect existed, and what to say of it.

    The newest of the seals that are old enough is taken.
    """
    if content.guard is None:
        return without_guard(keys), None, ()
    path = material.with_suffix(".guard.jsonl")
    if not path.is_file() or file_digest(path) != content.guard.log:
        raise SignatureError(f"its log {path.name} is missing, or not the one that was signed")
    guard = next(((name, key) for name, key in keys.items() if isinstance(key, AnswerKey)), None)
    if guard is None:
        raise SignatureError("it holds a guard's log and opens no guard")
    if roots is None or suspect_since is None:
        return without_guard(keys), None, ("the guard does not count: nobody says since when the suspect exists",)
    name, key = guard
    try:
        log = read_log(key, path, registration["shape"])
    except StoreError as error:
        raise SignatureError(f"its guard's log does not hold ({error})") from error
    for seal in reversed(content.guard.seals):
        when = verify_token(base64.b64decode(seal.token, validate=True), bytes.fromhex(seal.head), roots)
        if seal.lines >= len(log.chains) or log.chains[seal.lines] != seal.head:
            raise SignatureError(f"its log {path.name} is not the one that was sealed at {when.isoformat()}")
        if when < suspect_since:
            length = log_length(seal.lines)
            if not length.images:
                return without_guard(keys), None, ("the guard does not count: its sealed log has too few images",)
            sealed = SealedLog(name, log.gap, length, when)
            found = with_log(keys, path, count=length.images)
            return found, sealed, ()
    note = f"the guard does not count: its log was first sealed at {when.isoformat()}, after the suspect was made"
    return without_guard(keys), None, (note,)


def _panel(described: list[doc.PanelMember], tensors: Mapping[str, Tensor], digests: list[str]) -> list[nn.Module]:
    models: list[nn.Module] = []
    for member in described:
        prefix = f"panel/{member.name}/"
        weights = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
        try:
            if json.loads(member.model).keys() - WRAPPER_FIELD != NETWORK_FIELDS:
                raise SignatureError(f"its panel member {member.name} is described by other fields than a network has")
            models.append(described_network(member.model.encode(), weights, prefix, Limits()))
        except Error as error:
            raise SignatureError(f"its panel cannot be built ({error})") from error
    if [weights_digest(model) for model in models] != digests:
        raise SignatureError("its panel is not the one that was registered")
    return models
