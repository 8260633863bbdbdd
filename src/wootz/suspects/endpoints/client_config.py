"""Settings of the client that queries an endpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from wootz import checks
from wootz.errors import ConfigError
from wootz.suspects.endpoints.preprocessing import Preprocessing

Api = Literal["auto", "oip", "tfserving", "huggingface", "template"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """Request and response format of an API that follows no standard.

    Attributes:
        path: appended to the URL of the model.
        encoder: `array` sends JSON numbers, `base64` a PNG as JSON text, `png` the bytes of a PNG as the whole body.
        field: the JSON field for the images; unused by `png`.
        single: send one image per request, without a list around it.
        answer: JSON pointer (RFC 6901) to the list of answers, one per image; with `single`, to the answer itself.
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
            raise ConfigError("template.encoder = 'png': sends one image per request; set template.single=true")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How an endpoint is queried.

    Attributes:
        api: the API of the endpoint; `auto` detects it from the URL.
        budget: the maximum number of images to send; None is unlimited.
        batch: the number of images per request.
        connect_timeout: seconds to establish a connection.
        read_timeout: seconds from the established connection to the end of the response.
        response_limit: maximum size in bytes of the response to one image; each further image of a batch adds a
            sixteenth.
        max_tries: the maximum number of attempts per request; after that its images count as missing.
        backoff: seconds; the delay before attempt n is drawn uniformly from 0 to `backoff` * 2^n.
        backoff_cap: the maximum of that range in seconds.
        retry_after_cap: the longest delay in seconds that the server may request by `Retry-After`.
        binary: use of the binary extension of the Open Inference Protocol; `auto` falls back to JSON if the server
            rejects it.
        input: the name of the input tensor, if the metadata do not give it.
        output: the name of the output tensor to read; None takes the first one.
        classes: the class names in output order; empty takes those of the metadata.
        template: the format of requests and responses, for `api = template`.
        presentation: the preprocessing of images before they are sent.
        authorities: a PEM file of trusted certificate authorities; None takes the default ones.
        seed: the seed of the random delays.
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
    presentation: Preprocessing = field(default_factory=Preprocessing)
    authorities: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        checks.at_least(1, batch=self.batch, response_limit=self.response_limit)
        checks.at_least(0, budget=self.budget or 0)
        checks.within(1, 5, max_tries=self.max_tries)
        checks.positive(connect_timeout=self.connect_timeout, read_timeout=self.read_timeout)
        checks.not_negative(backoff=self.backoff, backoff_cap=self.backoff_cap, retry_after_cap=self.retry_after_cap)
        if len(set(self.classes)) != len(self.classes):
            raise ConfigError("classes: names must be distinct")
