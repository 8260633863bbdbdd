"""Whom a claim about an endpoint is about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from wootz.store import canonical, sha256


class Identity(NamedTuple):
    """An endpoint's name, and the SHA-256 (hexadecimal) of its descriptor."""

    name: str
    digest: str


def describe(url: str, metadata: Mapping[str, Any], certificate: str = "") -> Identity:
    """Return who answers at `url`.

    It says who was asked, no more: the same endpoint may serve another model tomorrow, and a certificate is
    renewed now and then.

    Args:
        url: of the model.
        metadata: as they are served.
        certificate: SHA-256 of the TLS certificate (DER), `sha256:...`; empty without TLS.
    """
    name = url.rstrip("/")
    descriptor = {"url": name, "metadata": metadata, "certificate": certificate}
    return Identity(name, sha256(canonical(descriptor)).removeprefix("sha256:"))
