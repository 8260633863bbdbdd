"""Adapters for the APIs that endpoints speak, and the detection of the API from a URL."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor

from wootz.errors import ConfigError
from wootz.store import canonical
from wootz.suspects.endpoints import open_inference
from wootz.suspects.endpoints.client_config import Client, Template
from wootz.suspects.endpoints.context import EndpointContext, EndpointInfo, model_name_from_url
from wootz.suspects.endpoints.parsing import UnusableAnswerError, parse_json
from wootz.suspects.endpoints.preprocessing import encode_png, preprocess
from wootz.suspects.endpoints.transport import Request, Response


class ApiAdapter(NamedTuple):
    """How requests of an API are encoded and its responses are decoded.

    Attributes:
        read_info: (URL, metadata, settings) -> the checked metadata.
        encode_request: (context, images [N, C, H, W] in [0, 1], request ID, binary) -> a request.
        decode_response: (context, response, N, request ID) -> one item per image for `parsing.parse_answer`; raises
            `UnusableAnswerError`.
        requires_metadata: whether `GET` at the URL of the model must return metadata.
        supports_binary: whether the API has a binary encoding.
        template: the fixed template of the API; None takes the one of the settings.
    """

    read_info: Callable[[str, Mapping[str, Any], Client], EndpointInfo]
    encode_request: Callable[[EndpointContext, Tensor, str, bool], Request]
    decode_response: Callable[[EndpointContext, Response, int, str], list[Any]]
    requires_metadata: bool = False
    supports_binary: bool = False
    template: Template | None = None


def template_info(url: str, metadata: Mapping[str, Any], cfg: Client) -> EndpointInfo:
    """Return the info of an API without standard metadata: it depends on the settings; `metadata` are only kept."""
    return EndpointInfo(
        model=model_name_from_url(url),
        classes=cfg.classes or None,
        num_classes=len(cfg.classes) or None,
        parameters=MappingProxyType(dict(metadata)),
        batch=1 if cfg.template.single else None,
    )


def encode_template_request(context: EndpointContext, x: Tensor, request_id: str, binary: bool) -> Request:
    """Encode images [N, C, H, W] in [0, 1] by the template; `request_id` and `binary` are not used."""
    template, preprocessing = context.cfg.template, context.cfg.presentation
    url = context.url + template.path
    if template.encoder == "png":
        return Request("POST", url, {"Content-Type": "image/png"}, encode_png(x, preprocessing)[0])
    if template.encoder == "base64":
        images: list[Any] = [base64.b64encode(png).decode() for png in encode_png(x, preprocessing)]
    else:
        images = preprocess(x, preprocessing).tolist()
    body = canonical({template.field: images[0] if template.single else images})
    return Request("POST", url, {"Content-Type": "application/json"}, body)


def decode_template_response(context: EndpointContext, response: Response, count: int, request_id: str) -> list[Any]:
    """Return one item per image, from the places that the template points to.

    Raises:
        UnusableAnswerError: there is nothing at these places, or not one item per image.
    """
    template = context.cfg.template
    answer = resolve_pointer(parse_json(response.body), template.answer)
    items = [answer] if template.single else answer
    if not isinstance(items, list) or len(items) != count:
        raise UnusableAnswerError(f"has no list of {count} items at {template.answer!r}")
    return [resolve_pointer(item, template.item) for item in items]


def resolve_pointer(value: Any, pointer: str) -> Any:
    """Return the part of a JSON document that a JSON pointer (RFC 6901) refers to.

    Raises:
        UnusableAnswerError: the document has no such part.
    """
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise UnusableAnswerError(f"has nothing at {pointer!r}")
    return value


API_ADAPTERS: Mapping[str, ApiAdapter] = MappingProxyType(
    {
        "oip": ApiAdapter(
            open_inference.read_info,
            open_inference.encode_request,
            open_inference.decode_response,
            requires_metadata=True,
            supports_binary=True,
        ),
        "tfserving": ApiAdapter(
            template_info,
            encode_template_request,
            decode_template_response,
            requires_metadata=True,
            template=Template(path=":predict"),
        ),
        "huggingface": ApiAdapter(
            template_info,
            encode_template_request,
            decode_template_response,
            template=Template(encoder="png", single=True, answer=""),
        ),
        "template": ApiAdapter(template_info, encode_template_request, decode_template_response),
    }
)

_API_OF_VERSION = MappingProxyType({"v2": "oip", "v1": "tfserving"})


def detect_api(api: str, url: str) -> str:
    """Return the name of an adapter in `API_ADAPTERS`; `auto` detects it from the URL.

    Raises:
        ConfigError: the API cannot be detected.
    """
    if api != "auto":
        return api
    match = re.search(r"/(v1|v2)/models/[^/:]+(/versions/[^/:]+)?$", url)
    if match is None:
        raise ConfigError(
            f"{url}: the API cannot be detected from the URL; .../v2/models/NAME is Open Inference Protocol and "
            ".../v1/models/NAME is TensorFlow Serving; for other URLs set api=huggingface or api=template"
        )
    return _API_OF_VERSION[match[1]]
