"""Whom a claim is about: the digest of a model's file, and a name for people."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from wootz.store import file_digest


class Identity(NamedTuple):
    """A suspect's name, and the SHA-256 (hexadecimal) of its weights."""

    name: str
    digest: str


def identify(suspect: Path) -> Identity:
    """Return who the suspect at this path is.

    Raises:
        StoreError: there is no such file.
    """
    path = suspect / "model.safetensors" if suspect.is_dir() else suspect
    return Identity(suspect.name, file_digest(path).removeprefix("sha256:"))
