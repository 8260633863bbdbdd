"""What is known of a remote model: its address and identity, the client's settings, and what its metadata claim."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import unquote

from wootz.errors import ModelError
from wootz.store import sha256
from wootz.suspects.endpoints.client_config import Client
from wootz.types import MAX_CLASSES, MAX_IMAGE_VALUES


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointInfo:
    """The metadata of an endpoint, as it reports them; none of it is verified.

    Attributes:
        model: the name that the model is served under.
        shape: (C, H, W) of one input image; None if the metadata do not give it.
        classes: the class names in output order; None if neither the metadata nor the settings give them.
        num_classes: the number of classes; None if unknown.
        parameters: all other metadata of the model.
        input: the name of the input tensor.
        datatype: the datatype of the input tensor, as the Open Inference Protocol spells it.
        output: the name of the output tensor to read; None takes the first one.
        batch: the only batch size that the model accepts; None accepts any.
    """

    model: str
    shape: tuple[int, int, int] | None = None
    classes: tuple[str, ...] | None = None
    num_classes: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    input: str = "input"
    datatype: str = "FP32"
    output: str | None = None
    batch: int | None = None


def check_info(url: str, info: EndpointInfo) -> None:
    """Check what the metadata claim, before anything of these sizes is allocated.

    Raises:
        ModelError: more classes than `MAX_CLASSES`, fewer than 2, or images of more than `MAX_IMAGE_VALUES` values.
    """
    if info.num_classes is not None and not 2 <= info.num_classes <= MAX_CLASSES:
        raise ModelError(f"{url}: has {info.num_classes:,} classes; a classifier has 2 to {MAX_CLASSES:,}")
    if info.shape is not None and math.prod(info.shape) > MAX_IMAGE_VALUES:
        raise ModelError(f"{url}: takes images {list(info.shape)}, of more than {MAX_IMAGE_VALUES:,} values")


class EndpointContext(NamedTuple):
    """What an API adapter needs to encode requests and decode responses.

    Attributes:
        url: the URL of the model, without a trailing slash.
        cfg: the settings of the client.
        info: the metadata of the endpoint.
    """

    url: str
    cfg: Client
    info: EndpointInfo


class Identity(NamedTuple):
    """The identity of a suspect model.

    Attributes:
        name: a file name, or the URL of an endpoint.
        digest: SHA-256 (hexadecimal) of the weights, or of the URL.
    """

    name: str
    digest: str


def endpoint_identity(url: str) -> Identity:
    """Return the identity of the endpoint at `url`, which depends on the address only.

    The operator can change the metadata and the TLS certificate at any time, so a claim does not depend on them; the
    transcript records both. The same address may serve another model later.
    """
    name = url.rstrip("/")
    return Identity(name, sha256(name.encode()).removeprefix("sha256:"))


def model_name_from_url(url: str) -> str:
    """Return the model name in a URL: the part after `/models/`, or else the last part of the path."""
    path = url.partition("://")[2].partition("?")[0]
    return unquote(path.rpartition("/models/")[2].partition("/versions/")[0].rpartition("/")[2])
