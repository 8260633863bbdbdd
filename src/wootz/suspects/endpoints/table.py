"""The shapes of services by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from wootz.errors import ConfigError
from wootz.suspects.endpoints import protocol, templates
from wootz.suspects.endpoints.service import Shape
from wootz.suspects.endpoints.settings import Template

SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "oip": Shape(protocol.info, protocol.encode, protocol.decode, described=True, binary=True),
        "tfserving": Shape(
            templates.info, templates.encode, templates.decode, described=True, template=Template(path=":predict")
        ),
        "huggingface": Shape(
            templates.info,
            templates.encode,
            templates.decode,
            template=Template(encoder="png", single=True, answer=""),
        ),
        "template": Shape(templates.info, templates.encode, templates.decode),
    }
)

_PATHS = MappingProxyType({"v2": "oip", "v1": "tfserving"})


def named(api: str, url: str) -> str:
    """Return the name of a service's shape; `auto` tells it from the URL.

    Raises:
        ConfigError: the URL does not tell.
    """
    if api != "auto":
        return api
    found = re.search(r"/(v1|v2)/models/[^/:]+(/versions/[^/:]+)?$", url)
    if found is None:
        raise ConfigError(
            f"{url}: does not tell its kind; .../v2/models/NAME (Open Inference Protocol) and .../v1/models/NAME "
            "(TensorFlow Serving) do; for others set api=huggingface or api=template"
        )
    return _PATHS[found[1]]
