"""The service that is asked: where it is, how it is asked, what it claims to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote

from torch import Tensor

from wootz.suspects.endpoints.settings import Client, EndpointInfo, Template
from wootz.suspects.endpoints.wire import Reply, Request


class Service(NamedTuple):
    """A URL without a trailing slash, the settings of its client, and its facts."""

    url: str
    cfg: Client
    info: EndpointInfo


class Shape(NamedTuple):
    """How one kind of service is asked.

    Attributes:
        info: (URL, served metadata, settings) -> facts.
        encode: (service, images [N, C, H, W] in [0, 1], id, binary) -> request.
        decode: (service, reply, N, id) -> one item an image for `answers.read_row`; raises `UnusableError`.
        described: whether `GET` at the URL must give metadata.
        binary: whether it has a binary form.
        template: its template, where the shape is but that; None leaves it to the settings.
    """

    info: Callable[[str, Mapping[str, Any], Client], EndpointInfo]
    encode: Callable[[Service, Tensor, str, bool], Request]
    decode: Callable[[Service, Reply, int, str], list[Any]]
    described: bool = False
    binary: bool = False
    template: Template | None = None


def model_in(url: str) -> str:
    """Return the model's name in a URL: what follows `/models/`, or the last part of its path."""
    path = url.partition("://")[2].partition("?")[0]
    return unquote(path.rpartition("/models/")[2].partition("/versions/")[0].rpartition("/")[2])
