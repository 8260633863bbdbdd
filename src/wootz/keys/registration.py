"""The public registration: what is fixed before any key, in canonical JSON, and its digest.

Rows (trigger images, what they were made from) enter as salted Merkle leaves under one root over all of them, so
that no label can be re-ground image by image; secrets as commitments; everything else by digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from wootz.errors import SignatureError
from wootz.keys.keys import RegisteredMaterial
from wootz.keys.prf import stream
from wootz.keys.timestamps import check_token, token_digest
from wootz.store import canonical, sha256, tensor_digest

PROTOCOL = "wootz-registration/5"
MAX_CLASSES = 65_536


class ClaimOptions(NamedTuple):
    """What a claim may choose after the suspect has answered. log2 of the number of choices comes off its bits.

    Attributes:
        accesses: of `scores`, `label`, `walks` (labels along registered paths, see `BoundarySearchTerms`) and
            `weights`; by default every access that a registered mark can be tested with.
        budgets: queries per mark; 0 is all.
    """

    accesses: Sequence[str] = ()
    budgets: Sequence[int] = (0, 500)


class TimestampTerms(NamedTuple):
    """What the one time token of a registration must be like.

    Attributes:
        policy: the authority's policy, a dotted object identifier; empty for any.
    """

    policy: str = ""


class BoundarySearchTerms(NamedTuple):
    """How a suspect that shows labels only is walked away from classes, see `wootz.statistics.boundary_search`.

    Ten steps of PGD on the first panel model reach three training budgets; a suspect is asked at `stops`, parts of the
    way, until it leaves the class, which most do at one to two budgets. Registered, so that nobody picks them for luck.
    """

    eps: str
    norm: str
    steps: int = 10
    stops: Sequence[str] = ("1/3", "5/12", "1/2", "7/12", "2/3")
    queries: int = 20_000

    @classmethod
    def beyond(cls, eps: float, norm: str) -> BoundarySearchTerms:
        """Return the walk for a training budget."""
        return cls(f"{3 * eps:g}", norm)


class CommitmentOpening(NamedTuple):
    """A tranche's secret, and the salt of its commitment and of its leaves."""

    secret: bytes
    salt: bytes


def register(
    materials: Mapping[str, RegisteredMaterial],
    sealed: Mapping[str, Sequence[CommitmentOpening]],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: Sequence[str],
    owner: str = "",
    walk: BoundarySearchTerms | None = None,
    options: ClaimOptions | None = None,
    timestamp: TimestampTerms | None = None,
) -> dict[str, Any]:
    """Return the registration of one run.

    Args:
        materials: by mark, all that is fixed before its key.
        sealed: by mark, one secret and salt a tranche.
        classes: names, in the order of the logits.
        shape: channels, height, width of the images.
        panel: digests of the weights of the independent models that the tests use.
        owner: the owner's public key, raw Ed25519 in hexadecimal; empty where nobody signs.
        walk: for suspects that show labels only; None where the panel is empty.
        options: what a claim may choose.
        timestamp: terms of the time token that the keys are drawn after; None draws them without one.

    Raises:
        ValueError: fewer than 2 or more than 65,536 classes.
    """
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise ValueError(f"{len(classes)} classes; a registration holds 2 to {MAX_CLASSES:,}")
    options = options or ClaimOptions()
    accesses = options.accesses or _accesses(materials, walk)
    marks = {name: _entry(material, sealed[name]) for name, material in materials.items()}
    roots = [bytes.fromhex(t["root"][7:]) for entry in marks.values() for t in entry["tranches"] if "root" in t]
    told = {
        "protocol": PROTOCOL,
        "classes": list(classes),
        "shape": list(shape),
        "panel": list(panel),
        "owner": owner,
        "marks": marks,
        "options": {"accesses": list(accesses), "budgets": list(options.budgets)},
    }
    told |= {"walk": walk._asdict() | {"stops": list(walk.stops)}} if walk else {}
    told |= {"timestamp": timestamp._asdict()} if timestamp else {}
    return told | ({"root": _named(merkle_root(roots))} if roots else {})


def registration_digest(registration: Mapping[str, Any]) -> bytes:
    """Return the 32-byte digest D that time tokens are made of."""
    return hashlib.sha256(canonical(registration)).digest()


def key_context(registration: Mapping[str, Any], token: bytes = b"") -> bytes:
    """Return what keys are drawn after: SHA-256(D || digest of the signed content of the time token, or nothing).

    Raises:
        SignatureError: the registration names a time token and there is none, the other way around, or the token is
            over something else.
    """
    terms, digest = registration.get("timestamp"), registration_digest(registration)
    if terms is None and token:
        raise SignatureError("a time token that the registration does not name")
    if terms is None:
        return hashlib.sha256(digest).digest()
    if not token:
        raise SignatureError("the time token that the registration names is missing")
    check_token(token, digest, policy=terms["policy"])
    return hashlib.sha256(digest + token_digest(token)).digest()


def commit(sealed: CommitmentOpening) -> str:
    """Return the commitment SHA-256(secret || salt)."""
    return sha256(sealed.secret + sealed.salt)


def tranche_root(tensors: Mapping[str, Tensor], salt: bytes) -> str:
    """Return the Merkle root over the rows of one tranche.

    A leaf is SHA-256(0x00 || its own salt || for each tensor by name: shape; bytes of the row).

    Raises:
        ValueError: the tensors have different numbers of rows, or none; a row outside the root could be added later.
    """
    names = sorted(tensors)
    counts = {len(tensors[name]) for name in names}
    if len(counts) != 1 or counts == {0}:
        raise ValueError("the tensors of a tranche must have the same number of rows, at least one")
    (count,) = counts
    salts = stream(salt, b"leaves", 16 * count)
    leaves = []
    for row in range(count):
        leaf = hashlib.sha256(b"\0" + salts[16 * row : 16 * (row + 1)])
        for name in names:
            value = tensors[name][row]
            leaf.update(f"{name} {list(value.shape)} {value.dtype};".encode() + value.numpy().tobytes())
        leaves.append(leaf.digest())
    return _named(merkle_root(leaves))


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf digests, in order (RFC 6962: nodes are SHA-256(0x01 || left || right))."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def _entry(material: RegisteredMaterial, sealed: Sequence[CommitmentOpening]) -> dict[str, Any]:
    rows = material.kind in ("labels", "half")
    tranches = [
        {"commitment": commit(part)}
        | ({"root": tranche_root(material.tranche(number).tensors, part.salt)} if rows else {})
        for number, part in enumerate(sealed)
    ]
    digests = {} if rows else {key: tensor_digest(tensor) for key, tensor in sorted(material.tensors.items())}
    return {"kind": material.kind, "facts": material.params, "tranches": tranches, "tensors": digests}


def _accesses(materials: Mapping[str, RegisteredMaterial], walk: BoundarySearchTerms | None) -> list[str]:
    """Return every access that these marks can be tested by."""
    weights = any(material.kind == "weights" for material in materials.values())
    return ["scores", "label", *(["walks"] if walk else []), *(["weights"] if weights else [])]


def _named(digest: bytes) -> str:
    return "sha256:" + digest.hex()
