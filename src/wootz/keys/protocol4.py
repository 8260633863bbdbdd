"""Keys that were registered under protocol 4. They are read for verification only, since claims need protocol 5.

Protocol 4 differs in three things: keys depend on the bytes of the whole time-stamp response, small integers are drawn
from bytes, and the registration does not list the choices of a claim.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from wootz.keys import keys
from wootz.keys.keys import Key, LabelKey, WeightKey
from wootz.keys.material import RegisteredMaterial, tranche_rows
from wootz.keys.prf import stream
from wootz.keys.registration import registration_digest

PROTOCOL = "wootz-registration/4"
SCHEMA = 2
"""Of `key.json`."""


def key_context(registration: Mapping[str, Any], token: bytes) -> bytes:
    """Return SHA-256(D || SHA-256(token)), with the registration's digest D and the time-stamp response's bytes."""
    return hashlib.sha256(registration_digest(registration) + hashlib.sha256(token).digest()).digest()


def derive_key(
    mark: str, material: RegisteredMaterial, num_classes: int, secrets: Sequence[bytes], context: bytes
) -> Key:
    """Derive the key of a mark as `wootz.keys.derive_key` does, with the integers of protocol 4."""
    key, purpose = (
        keys.derive_key(mark, material, num_classes, secrets, context),
        b"key/" + mark.encode() + b"/" + context,
    )
    if isinstance(key, LabelKey):
        labels = []
        for number, secret in enumerate(secrets):
            base = key.base[tranche_rows(len(key.base), len(secrets), number)]
            high = num_classes - 1 if key.rule == "wrong" else num_classes
            values = integers(secret, purpose + b"/" + str(number).encode(), len(base), high)
            labels.append((base + 1 + values) % num_classes if key.rule == "wrong" else values)
        return replace(key, labels=torch.cat(labels))
    if isinstance(key, WeightKey):
        return replace(key, message=integers(secrets[0], purpose + b"/message", len(key.message), 2))
    return key


def integers(secret: bytes, purpose: bytes, count: int, high: int) -> Tensor:
    """Return `count` int64 uniform on 0 .. high - 1: bytes by rejection, each modulo `high`, which is at most 256."""
    limit = 256 - 256 % high
    length = 2 * count + 64
    while True:
        values = [byte % high for byte in stream(secret, purpose, length) if byte < limit]
        if len(values) >= count:
            return torch.tensor(values[:count])
        length *= 2
