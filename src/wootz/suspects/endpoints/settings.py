"""What a client of an endpoint may be told, and what an endpoint tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from wootz import checks
from wootz.errors import ConfigError
from wootz.suspects.endpoints.presentation import Presentation

Api = Literal["auto", "oip", "tfserving", "huggingface", "template"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """The shape of a service that follows no standard.

    Attributes:
        path: goes after the URL.
        encoder: `array` sends JSON numbers, `base64` a PNG as JSON text, `png` the bytes of a PNG as the whole body.
        field: the JSON field that the images go into; unused by `png`.
        single: one image a request, without a list around it.
        answer: JSON pointer (RFC 6901) to the list of answers, one an image; to the answer itself where `single`.
        item: JSON pointer, within one answer, to a label, a class name, scores, or a list of `{label, score}`.
    """

    path: str = ""
    encoder: Literal["array", "base64", "png"] = "array"
    field: str = "instances"
    single: bool = False
    answer: str = "/predictions"
    item: str = ""

    def __post_init__(self) -> None:
        for name, pointer in (("answer", self.answer), ("item", self.item)):
            if pointer and not pointer.startswith("/"):
                raise ConfigError(f"template.{name} = {pointer!r}: a JSON pointer is empty or begins with /")
        if self.encoder == "png" and not self.single:
            raise ConfigError("template.encoder = 'png': carries one image; set template.single=true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How an endpoint is asked.

    Attributes:
        api: its shape; `auto` tells it from the URL.
        budget: images that may be sent at all; None allows any number.
        batch: images a request.
        connect_timeout: seconds until a connection stands.
        read_timeout: seconds from there until the whole answer is read.
        response_limit: bytes of an answer to one image; each further image of a batch adds a sixteenth.
        max_tries: how often one request is sent before its images count as missing.
        backoff: seconds; the pause before try n is drawn from 0 to `backoff` * 2^n ...
        backoff_cap: ... but no more than these seconds.
        retry_after_cap: seconds that a server may ask us to wait.
        binary: the Open Inference Protocol's binary extension; `auto` falls back to JSON where it is refused.
        input: the input's name, where the served metadata do not say.
        output: the output that is read; None takes the first that fits.
        classes: class names in the order of the model's outputs; empty takes those that the endpoint tells.
        template: the shape, for `api = template`.
        presentation: how images are shown.
        authorities: a PEM file of the certificate authorities to trust; None takes the usual ones.
        seed: of the pauses.
    """

    api: Api = "auto"
    budget: int | None = None
    batch: int = 1
    connect_timeout: float = 5.0
    read_timeout: float = 30.0
    response_limit: int = 2**20
    max_tries: int = 5
    backoff: float = 0.5
    backoff_cap: float = 30.0
    retry_after_cap: float = 60.0
    binary: Literal["auto", "always", "never"] = "auto"
    input: str = "input"
    output: str | None = None
    classes: tuple[str, ...] = ()
    template: Template = Template()
    presentation: Presentation = field(default_factory=Presentation)
    authorities: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, batch=self.batch, response_limit=self.response_limit)
        checks.at_least(0, budget=self.budget or 0)
        checks.within(1, 5, max_tries=self.max_tries)
        checks.positive(connect_timeout=self.connect_timeout, read_timeout=self.read_timeout)
        checks.not_negative(backoff=self.backoff, backoff_cap=self.backoff_cap, retry_after_cap=self.retry_after_cap)
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError("classes: a name stands there twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointInfo:
    """What an endpoint claims to be.

    Attributes:
        model: the name it serves under.
        shape: (C, H, W) of an image as the endpoint takes it; None where it does not say.
        classes: the names of its classes, in order; None where nobody says.
        num_classes: how many; None where nobody says.
        parameters: whatever else it serves about itself.
        input: the input's name.
        datatype: of the input, as the Open Inference Protocol spells it.
        output: the name of the output to read; None takes the only one.
        batch: images that it takes a request; None takes any number.
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
