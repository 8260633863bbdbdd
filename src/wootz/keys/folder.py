"""The key folder of a run: secret (mode 0700), checked against the public registration when it is opened."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wootz.errors import KeyFolderError, SignatureError, StoreError
from wootz.keys.documents import read_registration
from wootz.keys.keys import Key, RegisteredMaterial, derive
from wootz.keys.prf import subkey
from wootz.keys.registration import (
    BoundarySearchTerms,
    ClaimOptions,
    CommitmentOpening,
    TimestampTerms,
    key_context,
    register,
    registration_digest,
)
from wootz.keys.timestamps import token_digest
from wootz.store import read_bytes, read_json, read_tensors, write_bytes, write_json, write_tensors

SCHEMA = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerKeys:
    """The keys of one run by mark, and all that they were drawn from and after.

    Attributes:
        keys: by mark.
        registration: public, see `wootz.keys.registration`.
        token: RFC 3161 time-stamp response over the registration's digest, from before the keys; empty where the
            registration names none.
        materials: by mark, what was fixed before its key.
        sealed: by mark, the secret and salt of each tranche.
    """

    keys: Mapping[str, Key] = field(repr=False)
    registration: Mapping[str, Any] = field(repr=False)
    token: bytes = field(repr=False)
    materials: Mapping[str, RegisteredMaterial] = field(repr=False)
    sealed: Mapping[str, tuple[CommitmentOpening, ...]] = field(repr=False)


def draw_keys(
    secret: bytes,
    materials: Mapping[str, RegisteredMaterial],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: Sequence[str],
    owner: str = "",
    walk: BoundarySearchTerms | None = None,
    options: ClaimOptions | None = None,
    stamp: Callable[[bytes], bytes] | None = None,
    policy: str = "",
) -> OwnerKeys:
    """Register the materials and draw each mark's key after that.

    Args:
        secret: of the run; each tranche of each mark gets a secret of its own from it.
        materials: by mark.
        classes: see `register`, as are the next five.
        shape: of the images.
        panel: digests of the independent models.
        owner: public key.
        walk: away from a suspect's answers.
        options: what a claim may choose.
        stamp: given the registration's digest, returns a time-stamp response over it; None draws keys without one.
        policy: the policy that the time-stamp authority is asked for, a dotted object identifier; empty for any.

    Raises:
        SignatureError: the response is damaged, or is over something else.
    """
    sealed = {name: tuple(_sealed(secret, name, t) for t in range(m.tranches)) for name, m in materials.items()}
    registration = register(
        materials,
        sealed,
        classes=classes,
        shape=shape,
        panel=panel,
        owner=owner,
        walk=walk,
        options=options,
        timestamp=TimestampTerms(policy) if stamp else None,
    )
    token = stamp(registration_digest(registration)) if stamp else b""
    return _ring(registration, token, materials, sealed)


def write_keys(folder: Path, owner_keys: OwnerKeys) -> None:
    """Write `key/` (mode 0700) under `folder`, and `registration.json` last, as the mark of a whole key."""
    place = folder / "key"
    _make_private(place)
    for name, material in owner_keys.materials.items():
        if material.tensors:
            write_tensors(place / f"{name}.safetensors", material.tensors, mode=0o600)
    opened = {
        name: [{k: v.hex() for k, v in part._asdict().items()} for part in parts]
        for name, parts in owner_keys.sealed.items()
    }
    if owner_keys.token:
        write_bytes(folder / "registration.tsr", owner_keys.token)
    digest = registration_digest(owner_keys.registration).hex()
    key = {"schema": SCHEMA, "registration": digest, "token": _token_digest(owner_keys.token), "marks": opened}
    write_json(place / "key.json", key, mode=0o600)
    write_json(folder / "registration.json", owner_keys.registration)


def has_keys(folder: Path) -> bool:
    """Whether `folder` holds a whole key."""
    return (folder / "registration.json").is_file()


def read_keys(folder: Path) -> OwnerKeys:
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
        if opened["schema"] != SCHEMA:
            raise KeyFolderError(f"{folder}: its key is of another version of wootz")
        read_registration(registration)
        if registration_digest(registration).hex() != opened["registration"]:
            raise KeyFolderError(f"{public}: was changed since the key was made, or is another run's")
        sealed = {
            name: tuple(CommitmentOpening(bytes.fromhex(part["secret"]), bytes.fromhex(part["salt"])) for part in parts)
            for name, parts in opened["marks"].items()
        }
        materials = {name: _material(place, name, entry) for name, entry in registration["marks"].items()}
        token = _read_token(folder / "registration.tsr", opened["token"])
        again = register(
            materials,
            sealed,
            classes=tuple(registration["classes"]),
            shape=tuple(registration["shape"]),
            panel=registration["panel"],
            owner=registration["owner"],
            walk=BoundarySearchTerms(**registration["walk"]) if "walk" in registration else None,
            options=ClaimOptions(**registration["options"]),
            timestamp=TimestampTerms(**registration["timestamp"]) if "timestamp" in registration else None,
        )
        if again != registration:
            raise KeyFolderError(f"{place}: {_culprit(again, registration)} was changed, or is another run's")
        return _ring(registration, token, materials, sealed)
    except (
        StoreError,
        SignatureError,
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        RuntimeError,
    ) as error:
        raise KeyFolderError(
            f"{folder}: its key or registration is damaged ({' '.join(str(error).split())})"
        ) from error


def _ring(
    registration: Mapping[str, Any],
    token: bytes,
    materials: Mapping[str, RegisteredMaterial],
    sealed: Mapping[str, tuple[CommitmentOpening, ...]],
) -> OwnerKeys:
    after, count = key_context(registration, token), len(registration["classes"])
    keys = {
        name: derive(name, material, count, [part.secret for part in sealed[name]], after)
        for name, material in materials.items()
    }
    return OwnerKeys(keys=keys, registration=registration, token=token, materials=materials, sealed=sealed)


def _read_token(path: Path, digest: str) -> bytes:
    """Read the time token that the keys were drawn after, and check that it is that one."""
    token = read_bytes(path) if path.is_file() else b""
    if _token_digest(token) != digest:
        raise KeyFolderError(
            f"{path}: is not the time token that the key was drawn after; restore that file"
            if digest
            else f"{path}: the key was drawn without a time token; remove this file"
        )
    return token


def _token_digest(token: bytes) -> str:
    return token_digest(token).hex() if token else ""


def _material(place: Path, name: str, entry: Mapping[str, Any]) -> RegisteredMaterial:
    path = place / f"{name}.safetensors"
    tensors = read_tensors(path) if entry["kind"] not in ("answers", "weights") else {}
    return RegisteredMaterial(entry["kind"], tensors, entry["facts"])


def _culprit(again: Mapping[str, Any], registration: Mapping[str, Any]) -> str:
    """Name the file whose content does not fit."""
    for name, entry in registration["marks"].items():
        mine = again["marks"][name]
        if [t["commitment"] for t in mine["tranches"]] != [t["commitment"] for t in entry["tranches"]]:
            return f"the secret of {name!r} in key.json"
        if mine != entry:
            return f"{name}.safetensors"
    return "registration.json"


def _sealed(secret: bytes, mark: str, tranche: int) -> CommitmentOpening:
    """The tranche's own secret, and its salt."""
    return CommitmentOpening(subkey(secret, "mark", mark, str(tranche)), subkey(secret, "salt", mark, str(tranche)))


def fresh_secret() -> bytes:
    """Return 32 random bytes, for keys that need not be repeated."""
    return secrets.token_bytes(32)


def _make_private(place: Path) -> None:
    try:
        place.mkdir(parents=True, exist_ok=True)
        os.chmod(place, 0o700)
    except OSError as error:
        raise StoreError(f"{place}: can not be made ({error.strerror})") from error
