"""The key folder of a run: secret (mode 0700), checked against the public registration when it is opened."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wootz.errors import KeyFolderError, StoreError
from wootz.ownership.keys import Key, Material, derive
from wootz.ownership.prf import subkey
from wootz.ownership.registration import PROTOCOL, commit, register, registration_digest
from wootz.store import read_json, read_tensors, tensor_digest, write_json, write_tensors

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRing:
    """The keys of one run by mark, and the registration they were drawn after."""

    keys: Mapping[str, Key] = field(repr=False)
    registration: Mapping[str, Any] = field(repr=False)


def draw_keys(
    secret: bytes,
    materials: Mapping[str, Material],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: list[str],
) -> KeyRing:
    """Register the materials and draw each mark's key from the secret and the registration's digest."""
    held = {name: _pair(secret, name) for name in materials}
    commitments = {name: commit(*pair) for name, pair in held.items()}
    registration = register(materials, commitments, classes=classes, shape=shape, panel=panel)
    digest = registration_digest(registration)
    keys = {name: derive(name, m, len(classes), held[name][0], digest) for name, m in materials.items()}
    return KeyRing(keys=keys, registration=registration)


def write_keys(folder: Path, secret: bytes, materials: Mapping[str, Material], ring: KeyRing) -> None:
    """Write `key/` (mode 0700) under `folder`, and `registration.json` last, as the mark of a whole key."""
    place = folder / "key"
    _make_private(place)
    for name, material in materials.items():
        write_tensors(place / f"{name}.safetensors", material.tensors, mode=0o600)
    pairs = {name: _pair(secret, name) for name in materials}
    opened = {name: {"secret": pair[0].hex(), "salt": pair[1].hex()} for name, pair in pairs.items()}
    digest = registration_digest(ring.registration).hex()
    write_json(place / "key.json", {"schema": SCHEMA, "registration": digest, "marks": opened}, mode=0o600)
    write_json(folder / "registration.json", ring.registration)


def has_keys(folder: Path) -> bool:
    """Whether `folder` holds a whole key."""
    return (folder / "registration.json").is_file()


def read_keys(folder: Path) -> KeyRing:
    """Open the key of a run folder.

    Raises:
        KeyFolderError: there is none, or some file of it does not match `registration.json`.
    """
    place, public = folder / "key", folder / "registration.json"
    if not (place / "key.json").is_file() or not public.is_file():
        raise KeyFolderError(
            f"{folder}: holds no key (key/key.json and registration.json); verify needs the owner's run folder"
        )
    try:
        registration, opened = read_json(public), read_json(place / "key.json")
        if registration["protocol"] != PROTOCOL or opened["schema"] != SCHEMA:
            raise KeyFolderError(f"{folder}: its key is of another version of wootz")
        digest, keys = registration_digest(registration), {}
        if digest.hex() != opened["registration"]:
            raise KeyFolderError(f"{public}: was changed since the key was made, or is another run's")
        for name, entry in registration["marks"].items():
            pair = {part: bytes.fromhex(text) for part, text in opened["marks"][name].items()}
            if commit(pair["secret"], pair["salt"]) != entry["commitment"]:
                raise KeyFolderError(f"{place / 'key.json'}: the secret of {name!r} was changed, or is another run's")
            tensors = read_tensors(place / f"{name}.safetensors")
            if {key: tensor_digest(t) for key, t in sorted(tensors.items())} != entry["tensors"]:
                raise KeyFolderError(f"{place / name}.safetensors: was changed since it was registered")
            material = Material(entry["kind"], tensors, entry["facts"])
            keys[name] = derive(name, material, len(registration["classes"]), pair["secret"], digest)
    except (StoreError, KeyError, TypeError, ValueError) as error:
        raise KeyFolderError(f"{folder}: its key or registration is damaged ({error})") from error
    return KeyRing(keys=keys, registration=registration)


def _pair(secret: bytes, mark: str) -> tuple[bytes, bytes]:
    """The mark's own secret, and the salt of its commitment."""
    return subkey(secret, "mark", mark), subkey(secret, "salt", mark)


def fresh_secret() -> bytes:
    """Return 32 random bytes, for keys that need not be repeated."""
    return secrets.token_bytes(32)


def _make_private(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        os.chmod(place, 0o700)
    except OSError as error:
        raise StoreError(f"{place}: can not be made ({error.strerror})") from error
