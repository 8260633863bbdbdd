"""The public registration: what is fixed before any key, in canonical JSON, and its digest.

Rows (trigger images and the images they were made from) are registered as salted Merkle leaves under one root over all
rows, so that no label can be changed by searching for another version of a single image. Secrets are registered as
commitments, everything else by digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from wootz.errors import KeyFolderError, SignatureError
from wootz.keys.material import RegisteredMaterial
from wootz.keys.prf import stream
from wootz.keys.timestamps import check_token, token_digest
from wootz.store import canonical, sha256, tensor_digest

REGISTRATION_PROTOCOL = "wootz-registration/5"
MAX_CLASSES = 65_536


class ClaimOptions(NamedTuple):
    """The choices left to a claim after the suspect has answered; log2 of their number is subtracted from its bits.

    Attributes:
        accesses: of `scores`, `label`, `walks` (labels along registered paths, see `BoundarySearchTerms`) and
            `weights`; empty for every access that a registered mark can be tested with.
        budgets: queries per mark; 0 for all.
    """

    accesses: Sequence[str] = ()
    budgets: Sequence[int] = (0, 500)


class TimestampTerms(NamedTuple):
    """Requirements on the time token of a registration.

    Attributes:
        policy: the authority's policy, a dotted object identifier; empty for any.
    """

    policy: str = ""


class BoundarySearchTerms(NamedTuple):
    """Parameters of the boundary search on a suspect that returns labels only, see `wootz.statistics.boundary_search`.

    PGD on the first panel model moves an image by up to three training budgets. The suspect is queried at `stops`,
    fractions of that path, until its label changes, which for most models happens at one to two budgets. The
    parameters are registered, so that they cannot be chosen for a favorable result.

    Attributes:
        eps: length of the path, in pixels of [0, 1].
        norm: norm of the path.
        steps: number of PGD steps.
        stops: fractions of the path at which the suspect is queried, in order.
        queries: query budget of the search.
    """

    eps: str
    norm: str
    steps: int = 10
    stops: Sequence[str] = ("1/3", "5/12", "1/2", "7/12", "2/3")
    queries: int = 20_000

    @classmethod
    def for_eps(cls, eps: float, norm: str) -> BoundarySearchTerms:
        """Return the parameters for a training budget `eps`."""
        return cls(f"{3 * eps:g}", norm)


class CommitmentOpening(NamedTuple):
    """A tranche's secret, and the salt of its commitment and of its leaves."""

    secret: bytes
    salt: bytes


def check_protocol(registration: Mapping[str, Any], where: object) -> None:
    """Check that claims can be made with a key.

    Raises:
        KeyFolderError: the key was registered under an older protocol, whose keys an owner could draw repeatedly.
    """
    if registration["protocol"] != REGISTRATION_PROTOCOL:
        raise KeyFolderError(
            f"{where}: its key was registered under protocol 4 and can only be verified; claims need protocol 5: "
            "run `wootz protect` again"
        )


def register(
    materials: Mapping[str, RegisteredMaterial],
    openings: Mapping[str, Sequence[CommitmentOpening]],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: Sequence[str],
    owner: str = "",
    boundary_search: BoundarySearchTerms | None = None,
    options: ClaimOptions | None = None,
    timestamp: TimestampTerms | None = None,
) -> dict[str, Any]:
    """Return the registration of one run.

    Args:
        materials: by mark, everything that is fixed before its key.
        openings: by mark, one secret and salt per tranche.
        classes: class names, in the order of the logits.
        shape: channels, height and width of the images.
        panel: digests of the weights of the independent models that the tests use.
        owner: the owner's public key, raw Ed25519 in hexadecimal; empty if claims will not be signed.
        boundary_search: for suspects that return labels only; None if the panel is empty.
        options: the choices left to a claim; None for the defaults of `ClaimOptions`.
        timestamp: requirements on the time token that the keys are derived after; None if there is no token.

    Raises:
        ValueError: fewer than 2 or more than 65,536 classes.
    """
    if not 2 <= len(classes) <= MAX_CLASSES:
        raise ValueError(f"{len(classes)} classes; a registration holds 2 to {MAX_CLASSES:,}")
    options = options or ClaimOptions()
    accesses = options.accesses or _accesses(materials, boundary_search)
    marks = {name: _mark_entry(material, openings[name]) for name, material in materials.items()}
    roots = [bytes.fromhex(t["root"][7:]) for entry in marks.values() for t in entry["tranches"] if "root" in t]
    registration: dict[str, Any] = {
        "protocol": REGISTRATION_PROTOCOL,
        "classes": list(classes),
        "shape": list(shape),
        "panel": list(panel),
        "owner": owner,
        "marks": marks,
        "options": {"accesses": list(accesses), "budgets": list(options.budgets)},
    }
    if boundary_search:
        registration["walk"] = boundary_search._asdict() | {"stops": list(boundary_search.stops)}
    if timestamp:
        registration["timestamp"] = timestamp._asdict()
    if roots:
        registration["root"] = _sha256_text(merkle_root(roots))
    return registration


def registration_digest(registration: Mapping[str, Any]) -> bytes:
    """Return the 32-byte digest of a registration, over which time tokens are made."""
    return hashlib.sha256(canonical(registration)).digest()


def key_context(registration: Mapping[str, Any], token: bytes = b"") -> bytes:
    """Return the digest that enters the derivation of every key, so that keys depend on all that was registered.

    It is SHA-256(D || T), with the registration's digest D and the digest T of the signed content of the time token;
    without a token, SHA-256(D).

    Raises:
        SignatureError: the registration requires a time token and none is given, or the reverse; or the token is over
            something else.
    """
    terms, digest = registration.get("timestamp"), registration_digest(registration)
    if terms is None and token:
        raise SignatureError("a time token is given that the registration does not name")
    if terms is None:
        return hashlib.sha256(digest).digest()
    if not token:
        raise SignatureError("the time token that the registration names is missing")
    check_token(token, digest, policy=terms["policy"])
    return hashlib.sha256(digest + token_digest(token)).digest()


def commit(opening: CommitmentOpening) -> str:
    """Return the commitment SHA-256(secret || salt)."""
    return sha256(opening.secret + opening.salt)


def tranche_root(tensors: Mapping[str, Tensor], salt: bytes) -> str:
    """Return the Merkle root over the rows of one tranche.

    A leaf is SHA-256(0x00 || salt of the leaf || for each tensor by name: shape; bytes of the row).

    Raises:
        ValueError: the tensors are empty or differ in their number of rows. Rows outside the root could be added later.
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
    return _sha256_text(merkle_root(leaves))


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over leaf digests, in order (RFC 6962: nodes are SHA-256(0x01 || left || right))."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


def _mark_entry(material: RegisteredMaterial, openings: Sequence[CommitmentOpening]) -> dict[str, Any]:
    has_rows = material.kind in ("labels", "half")
    tranches = [
        {"commitment": commit(opening)}
        | ({"root": tranche_root(material.tranche(number).tensors, opening.salt)} if has_rows else {})
        for number, opening in enumerate(openings)
    ]
    digests = {} if has_rows else {key: tensor_digest(tensor) for key, tensor in sorted(material.tensors.items())}
    return {"kind": material.kind, "facts": material.params, "tranches": tranches, "tensors": digests}


def _accesses(materials: Mapping[str, RegisteredMaterial], boundary_search: BoundarySearchTerms | None) -> list[str]:
    """Return every access that these marks can be tested with."""
    weights = any(material.kind == "weights" for material in materials.values())
    return ["scores", "label", *(["walks"] if boundary_search else []), *(["weights"] if weights else [])]


def _sha256_text(digest: bytes) -> str:
    return "sha256:" + digest.hex()
