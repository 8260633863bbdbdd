"""Whom a claim about an endpoint is about."""

from __future__ import annotations

from typing import NamedTuple

from wootz.store import sha256


class Identity(NamedTuple):
    """A suspect's name, and the SHA-256 (hexadecimal) of what a claim is about: weights, or an address."""

    name: str
    digest: str


def describe(url: str) -> Identity:
    """Return who answers at `url`: the address alone.

    What an endpoint says of itself and its certificate are its holder's to change, so a claim does not depend on them;
    the transcript records them. The same address may serve another model tomorrow.
    """
    name = url.rstrip("/")
    return Identity(name, sha256(name.encode()).removeprefix("sha256:"))
