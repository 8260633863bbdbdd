"""The keys of a run, and its private key folder (mode 0700), which is checked against the registration when read."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wootz.errors import KeyFolderError, SignatureError, StoreError
from wootz.keys import protocol4
from wootz.keys.documents import read_registration
from wootz.keys.keys import Key, derive_key
from wootz.keys.material import RegisteredMaterial, check_material
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
    """The keys of one run, with everything that they were derived from.

    Attributes:
        by_mark: each mark's key.
        registration: the public registration, see `wootz.keys.registration`.
        token: RFC 3161 time-stamp response over the registration's digest, obtained before the keys were derived;
            empty if the registration requires none.
        materials: by mark, what was fixed before its key.
        openings: by mark, the secret and salt of each tranche.
    """

    by_mark: Mapping[str, Key] = field(repr=False)
    registration: Mapping[str, Any] = field(repr=False)
    token: bytes = field(repr=False)
    materials: Mapping[str, RegisteredMaterial] = field(repr=False)
    openings: Mapping[str, tuple[CommitmentOpening, ...]] = field(repr=False)


def draw_keys(
    secret: bytes,
    materials: Mapping[str, RegisteredMaterial],
    *,
    classes: tuple[str, ...],
    shape: tuple[int, int, int],
    panel: Sequence[str],
    owner: str = "",
    boundary_search: BoundarySearchTerms | None = None,
    options: ClaimOptions | None = None,
    fetch_token: Callable[[bytes], bytes] | None = None,
    policy: str = "",
) -> OwnerKeys:
    """Register the materials, then derive the key of each mark from the secret and the registration.

    Args:
        secret: secret of the run; each tranche of each mark gets its own secret derived from it.
        materials: by mark, what is fixed before its key.
        classes: class names, in the order of the logits.
        shape: channels, height and width of the images.
        panel: digests of the weights of the independent models that the tests use.
        owner: the owner's public key, see `register`.
        boundary_search: for suspects that return labels only, see `register`.
        options: the choices left to a claim, see `register`.
        fetch_token: requests a time-stamp response over the registration's digest; None derives keys without a token.
        policy: the policy that the time-stamp authority is asked for, a dotted object identifier; empty for any.

    Raises:
        ValueError: a material does not fit its kind, see `wootz.keys.material.check_material`, or the number of classes
            is outside the range of a registration.
        SignatureError: the time-stamp response is damaged, or is over something else.
    """
    openings = {name: tuple(_opening(secret, name, t) for t in range(m.tranches)) for name, m in materials.items()}
    registration = register(
        materials,
        openings,
        classes=classes,
        shape=shape,
        panel=panel,
        owner=owner,
        boundary_search=boundary_search,
        options=options,
        timestamp=TimestampTerms(policy) if fetch_token else None,
    )
    for material in materials.values():
        check_material(material, len(classes), shape)
    token = fetch_token(registration_digest(registration)) if fetch_token else b""
    return derive_owner_keys(registration, token, materials, openings)


def derive_owner_keys(
    registration: Mapping[str, Any],
    token: bytes,
    materials: Mapping[str, RegisteredMaterial],
    openings: Mapping[str, tuple[CommitmentOpening, ...]],
) -> OwnerKeys:
    """Derive the key of each mark from what was registered, the time token and the secrets."""
    older, num_classes = registration["protocol"] == protocol4.PROTOCOL, len(registration["classes"])
    context = (protocol4.key_context if older else key_context)(registration, token)
    derive = protocol4.derive_key if older else derive_key
    keys = {
        name: derive(name, material, num_classes, [opening.secret for opening in openings[name]], context)
        for name, material in materials.items()
    }
    return OwnerKeys(by_mark=keys, registration=registration, token=token, materials=materials, openings=openings)


def write_keys(folder: str | Path, owner_keys: OwnerKeys) -> None:
    """Write `key/` (mode 0700) under `folder`; `registration.json` is written last and marks the key as complete."""
    folder = Path(folder)
    private = folder / "key"
    _make_private(private)
    for name, material in owner_keys.materials.items():
        if material.tensors:
            write_tensors(private / f"{name}.safetensors", material.tensors, mode=0o600)
    openings = {
        name: [{field: value.hex() for field, value in opening._asdict().items()} for opening in tranches]
        for name, tranches in owner_keys.openings.items()
    }
    if owner_keys.token:
        write_bytes(folder / "registration.tsr", owner_keys.token)
    digest = registration_digest(owner_keys.registration).hex()
    key = {"schema": SCHEMA, "registration": digest, "token": _token_hex(owner_keys.token), "marks": openings}
    write_json(private / "key.json", key, mode=0o600)
    write_json(folder / "registration.json", owner_keys.registration)


def has_keys(folder: str | Path) -> bool:
    """Return whether `folder` holds a complete key."""
    return (Path(folder) / "registration.json").is_file()


def read_keys(folder: str | Path) -> OwnerKeys:
    """Read the keys of a run folder, and check them against its registration.

    Keys of protocol 4 are read as well, for verification only; see `check_protocol`.

    Raises:
        KeyFolderError: there is no key, or one of its files does not match `registration.json`.
    """
    folder = Path(folder)
    private, public = folder / "key", folder / "registration.json"
    if not (private / "key.json").is_file() or not public.is_file():
        raise KeyFolderError(
            f"{folder}: holds no key (key/key.json and registration.json); verify needs the owner's run folder"
        )
    try:
        registration, stored = read_json(public), read_json(private / "key.json")
        older = stored["schema"] == protocol4.SCHEMA and registration["protocol"] == protocol4.PROTOCOL
        if not older:
            if stored["schema"] != SCHEMA:
                raise KeyFolderError(f"{folder}: its key is of another version of wootz")
            read_registration(registration)
        if registration_digest(registration).hex() != stored["registration"]:
            raise KeyFolderError(f"{public}: was changed after the key was derived, or belongs to another run")
        openings = {
            name: tuple(
                CommitmentOpening(bytes.fromhex(tranche["secret"]), bytes.fromhex(tranche["salt"]))
                for tranche in tranches
            )
            for name, tranches in stored["marks"].items()
        }
        materials = {name: _read_material(private, name, entry) for name, entry in registration["marks"].items()}
        token_file = folder / "registration.tsr"
        if older:
            token = read_bytes(token_file) if token_file.is_file() else b""
        else:
            token = _read_token(token_file, stored["token"])
        rebuilt = register(
            materials,
            openings,
            classes=tuple(registration["classes"]),
            shape=tuple(registration["shape"]),
            panel=registration["panel"],
            owner=registration["owner"],
            boundary_search=BoundarySearchTerms(**registration["walk"]) if "walk" in registration else None,
            options=None if older else ClaimOptions(**registration["options"]),
            timestamp=TimestampTerms(**registration["timestamp"]) if "timestamp" in registration else None,
        )
        if older:
            rebuilt = {name: value for name, value in rebuilt.items() if name != "options"}
            rebuilt["protocol"] = protocol4.PROTOCOL
        if rebuilt != registration:
            source = _mismatch(rebuilt, registration)
            raise KeyFolderError(f"{private}: {source} was changed, or belongs to another run")
        return derive_owner_keys(registration, token, materials, openings)
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


def _opening(secret: bytes, mark: str, tranche: int) -> CommitmentOpening:
    return CommitmentOpening(subkey(secret, "mark", mark, str(tranche)), subkey(secret, "salt", mark, str(tranche)))


def _read_token(path: Path, digest: str) -> bytes:
    """Read the time token of a key, and check that the key was derived after this one."""
    token = read_bytes(path) if path.is_file() else b""
    if _token_hex(token) != digest:
        raise KeyFolderError(
            f"{path}: is not the time token that the key was derived after; restore that file"
            if digest
            else f"{path}: the key was derived without a time token; remove this file"
        )
    return token


def _token_hex(token: bytes) -> str:
    return token_digest(token).hex() if token else ""


def _read_material(private: Path, name: str, entry: Mapping[str, Any]) -> RegisteredMaterial:
    path = private / f"{name}.safetensors"
    tensors = read_tensors(path) if entry["kind"] not in ("answers", "weights") else {}
    return RegisteredMaterial(entry["kind"], tensors, entry["facts"])


def _mismatch(rebuilt: Mapping[str, Any], registration: Mapping[str, Any]) -> str:
    """Return the name of the file whose content does not fit the registration."""
    for name, entry in registration["marks"].items():
        mark = rebuilt["marks"][name]
        if [t["commitment"] for t in mark["tranches"]] != [t["commitment"] for t in entry["tranches"]]:
            return f"the secret of {name!r} in key.json"
        if mark != entry:
            return f"{name}.safetensors"
    return "registration.json"


def _make_private(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be created ({error.strerror})") from error
