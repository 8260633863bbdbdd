"""The public registration: what is fixed before any key, in canonical JSON, and its digest.

Images enter as one Merkle root over all of them (a label can then not be re-ground image by image), secrets
as commitments, everything else by digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wootz.ownership.keys import Material
from wootz.store import canonical, tensor_digest

PROTOCOL = "wootz-registration/1"


def register(
    materials: Mapping[str, Material],
    commitments: Mapping[str, str],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: list[str],
) -> dict[str, Any]:
    """Return the registration of one run.

    Args:
        materials: by mark, all that is fixed before its key.
        commitments: by mark, `commit(secret, salt)`.
        classes: names, in the order of the logits.
        shape: channels, height, width of the images.
        panel: digests of the weights of the independent models that the tests use.
    """
    marks = {
        name: {
            "kind": material.kind,
            "commitment": commitments[name],
            "facts": material.facts,
            "tensors": {key: tensor_digest(tensor) for key, tensor in sorted(material.tensors.items())},
        }
        | ({"root": merkle_root(material.tensors["pixels"])} if "pixels" in material.tensors else {})
        for name, material in materials.items()
    }
    return {
        "protocol": PROTOCOL,
        "classes": list(classes),
        "shape": list(shape),
        "panel": panel,
        "marks": marks,
    }


def registration_digest(registration: Mapping[str, Any]) -> bytes:
    """Return the 32-byte digest that keys are derived after."""
    return hashlib.sha256(canonical(registration)).digest()


def commit(secret: bytes, salt: bytes) -> str:
    """Return the commitment SHA-256(secret || salt)."""
    return "sha256:" + hashlib.sha256(secret + salt).hexdigest()


def merkle_root(pixels: Tensor) -> str:
    """Return the root of a Merkle tree (RFC 6962 hashing) over images uint8 [n, C, H, W], in order."""
    shape = "x".join(str(size) for size in pixels.shape[1:]).encode()
    leaves = [hashlib.sha256(b"\0" + shape + b";" + image.numpy().tobytes()).digest() for image in pixels]
    return "sha256:" + _root(leaves).hex()


def _root(leaves: list[bytes]) -> bytes:
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + _root(leaves[:split]) + _root(leaves[split:])).digest()
