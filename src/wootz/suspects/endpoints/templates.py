"""Services that take images in some JSON field, or as PNG, and answer somewhere in a JSON document."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from wootz.store import canonical
from wootz.suspects.endpoints.answers import UnusableError, read_json
from wootz.suspects.endpoints.presentation import pngs, present
from wootz.suspects.endpoints.service import Service, model_in
from wootz.suspects.endpoints.settings import Client, EndpointInfo
from wootz.suspects.endpoints.wire import Reply, Request


def info(url: str, metadata: Mapping[str, Any], cfg: Client) -> EndpointInfo:
    """Such services say nothing of themselves that one could rely on; their metadata are kept as they are."""
    return EndpointInfo(
        model=model_in(url),
        classes=cfg.classes or None,
        num_classes=len(cfg.classes) or None,
        parameters=MappingProxyType(dict(metadata)),
        batch=1 if cfg.template.single else None,
    )


def encode(service: Service, x: Tensor, ident: str, binary: bool) -> Request:
    """Ask about images [N, C, H, W] in [0, 1]; there is one form only, and no place for the id."""
    template, presentation = service.cfg.template, service.cfg.presentation
    url = service.url + template.path
    if template.encoder == "png":
        return Request("POST", url, {"Content-Type": "image/png"}, pngs(x, presentation)[0])
    if template.encoder == "base64":
        images: list[Any] = [base64.b64encode(png).decode() for png in pngs(x, presentation)]
    else:
        images = present(x, presentation).tolist()
    body = canonical({template.field: images[0] if template.single else images})
    return Request("POST", url, {"Content-Type": "application/json"}, body)


def decode(service: Service, reply: Reply, count: int, ident: str) -> list[Any]:
    """Return one item an image, from where the template points.

    Raises:
        UnusableError: there is nothing, or not one item an image.
    """
    template = service.cfg.template
    found = resolve(read_json(reply.body), template.answer)
    items = [found] if template.single else found
    if not isinstance(items, list) or len(items) != count:
        raise UnusableError(f"is no list of {count} at {template.answer!r}")
    return [resolve(item, template.item) for item in items]


def resolve(value: Any, pointer: str) -> Any:
    """Return what a JSON pointer (RFC 6901) points to.

    Raises:
        UnusableError: there is nothing.
    """
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise UnusableError(f"has nothing at {pointer!r}")
    return value
