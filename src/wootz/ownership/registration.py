"""The public registration: what is fixed before any key, in canonical JSON, and its digest.

Rows (trigger images, what they were made from) enter as salted Merkle leaves under one root over all of them, so
that no label can be re-ground image by image; secrets as commitments; everything else by digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from wootz.ownership.keys import Material
from wootz.ownership.prf import stream
from wootz.store import canonical, sha256, tensor_digest

PROTOCOL = "wootz-registration/4"


class Walk(NamedTuple):
    """How a suspect that shows labels only is walked away from classes, see `wootz.verify.walks`.

    Ten steps of PGD on the first panel model reach three training budgets; a suspect is asked at `stops`, parts of the
    way, until it leaves the class, which most do at one to two budgets. Registered, so that nobody picks them for luck.
    """

    eps: str
    norm: str
    steps: int = 10
    stops: Sequence[str] = ("1/3", "5/12", "1/2", "7/12", "2/3")
    queries: int = 20_000

    @classmethod
    def beyond(cls, eps: float, norm: str) -> Walk:
        """Return the walk for a training budget."""
        return cls(f"{3 * eps:g}", norm)


class Sealed(NamedTuple):
    """A tranche's secret, and the salt of its commitment and of its leaves."""

    secret: bytes
    salt: bytes


def register(
    materials: Mapping[str, Material],
    sealed: Mapping[str, Sequence[Sealed]],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: Sequence[str],
    owner: str = "",
    walk: Walk | None = None,
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
    """
    marks = {name: _entry(material, sealed[name]) for name, material in materials.items()}
    roots = [bytes.fromhex(t["root"][7:]) for entry in marks.values() for t in entry["tranches"] if "root" in t]
    told = {
        "protocol": PROTOCOL,
        "classes": list(classes),
        "shape": list(shape),
        "panel": list(panel),
        "owner": owner,
        "marks": marks,
    }
    told |= {"walk": walk._asdict()} if walk else {}
    return told | ({"root": _named(merkle_root(roots))} if roots else {})


def registration_digest(registration: Mapping[str, Any]) -> bytes:
    """Return the 32-byte digest D that time tokens are made of."""
    return hashlib.sha256(canonical(registration)).digest()


def fixed_before(registration: Mapping[str, Any], token: bytes = b"") -> bytes:
    """Return what keys are drawn after: SHA-256(D || SHA-256(time token, or nothing))."""
    return hashlib.sha256(registration_digest(registration) + hashlib.sha256(token).digest()).digest()


def commit(sealed: Sealed) -> str:
    """Return the commitment SHA-256(secret || salt)."""
    return sha256(sealed.secret + sealed.salt)


def tranche_root(tensors: Mapping[str, Tensor], salt: bytes) -> str:
    """Return the Merkle root over the rows of one tranche.

    A leaf is SHA-256(0x00 || its own salt || for each tensor by name: shape; bytes of the row).
    """
    names = sorted(tensors)
    count = len(tensors[names[0]])
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


def _entry(material: Material, sealed: Sequence[Sealed]) -> dict[str, Any]:
    rows = material.kind in ("labels", "half")
    tranches = [
        {"commitment": commit(part)}
        | ({"root": tranche_root(material.tranche(number).tensors, part.salt)} if rows else {})
        for number, part in enumerate(sealed)
    ]
    digests = {} if rows else {key: tensor_digest(tensor) for key, tensor in sorted(material.tensors.items())}
    return {"kind": material.kind, "facts": material.facts, "tranches": tranches, "tensors": digests}


def _named(digest: bytes) -> str:
    return "sha256:" + digest.hex()
