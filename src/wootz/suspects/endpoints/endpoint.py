"""An endpoint as a `Predict`: every image is asked about once, within the budget, and never again."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_OID, uuid5

import httpx
import numpy as np
import torch
from torch import Tensor

from wootz import config
from wootz.errors import BudgetError, ConfigError, ModelError
from wootz.store import canonical, sha256, tensor_digest
from wootz.suspects.endpoints.answers import Row, UnusableError, missing, read_json, read_row
from wootz.suspects.endpoints.identity import Identity, describe
from wootz.suspects.endpoints.retrying import Outcome, persist, unanswered
from wootz.suspects.endpoints.service import Service, Shape
from wootz.suspects.endpoints.settings import Client, EndpointInfo
from wootz.suspects.endpoints.table import SHAPES, named
from wootz.suspects.endpoints.transcript import Missing, Transcript
from wootz.suspects.endpoints.wire import Request, Wire, wire
from wootz.types import AnswerAccess

Sleep = Callable[[float], None]

_RECORDED = ("api", "presentation", "template", "classes", "input", "output")
"""The settings that change what a question means."""


class Endpoint:
    """A `Predict` behind HTTP; made by `open_endpoint`.

    Attributes:
        info: what it claims to be.
        identity: its name, and the digest of its descriptor.
    """

    def __init__(
        self,
        service: Service,
        shape: Shape,
        wire: Wire,
        transcript: Transcript,
        identity: Identity,
        *,
        access: AnswerAccess,
        sleep: Sleep,
    ) -> None:
        self._service, self._shape, self._wire, self._transcript = service, shape, wire, transcript
        self._access, self._sleep = access, sleep
        self._forms = _forms(service.cfg, shape)
        self.info: EndpointInfo = service.info
        self.identity = identity

    @property
    def queries(self) -> int:
        """Images that were ever sent, in earlier runs of the same transcript, too."""
        return len(self._transcript.rows)

    @property
    def missing(self) -> Mapping[Missing, int]:
        """Images without an answer, by reason."""
        return self._transcript.missing

    @property
    def refused(self) -> int:
        """Images that the endpoint refused to answer."""
        return sum(count for why, count in self.missing.items() if why.kind == "refused")

    @property
    def transcript_digest(self) -> str:
        """SHA-256 of the transcript's last line, which holds for all lines before it."""
        return self._transcript.digest

    def notes(self) -> tuple[str, ...]:
        """Return what is to be told of missing answers, one line a reason."""
        return tuple(f"{n} images without an answer: {why.kind}, {why.detail}" for why, n in self.missing.items())

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> scores float32 [N, K], or labels int64 [N].

        An image that was asked about before keeps its first answer, or stays missing, and costs nothing.

        Raises:
            BudgetError: these images would exceed the budget; none is sent.
            ConfigError: the images as they are presented do not fit the endpoint.
            StoreError: the transcript can not be written; nothing more is sent.
        """
        images = x.detach().float().cpu()
        self._check_shape(images)
        names = [tensor_digest(image) for image in images]
        known = self._transcript.rows
        fresh = {name: row for row, name in enumerate(names) if name not in known}
        self._check_budget(len(fresh))
        order, size = list(fresh), self._service.cfg.batch
        for some in (order[start : start + size] for start in range(0, len(order), size)):
            self._ask(some, images[[fresh[name] for name in some]])
        rows = [known[name] for name in names]
        nothing = missing(self._access, self.info.num_classes)
        return torch.from_numpy(np.stack(rows) if rows else nothing[None][:0]).to(x.device)

    def _ask(self, names: Sequence[str], x: Tensor) -> None:
        cfg, ident = self._service.cfg, str(uuid5(NAMESPACE_OID, " ".join(names)))
        requests = [_keyed(self._shape.encode(self._service, x, ident, binary), ident) for binary in self._forms]
        number = self._transcript.ask(ident, names, [request.body for request in requests])
        limit = cfg.response_limit + (len(names) - 1) * (cfg.response_limit // 16)
        outcome = persist(self._wire, requests, limit, cfg, ident, self._sleep)
        if outcome.form or outcome.reply.status == 200:
            self._forms = (self._forms[outcome.form],)
        rows, why = self._read(outcome, len(names), ident)
        self._transcript.answer(number, rows, why, outcome.tries, outcome.reply.body)

    def _read(self, outcome: Outcome, count: int, ident: str) -> tuple[list[Row], Counter[Missing]]:
        """Return one row an image, and why some are missing."""
        nothing, why = missing(self._access, self.info.num_classes), _without_answer(outcome)
        if why is not None:
            return [nothing] * count, Counter({why: count})
        try:
            items = self._shape.decode(self._service, outcome.reply, count, ident)
        except UnusableError as error:
            return [nothing] * count, Counter({Missing("unusable", f"the answer {error}"): count})
        rows: list[Row] = []
        reasons: Counter[Missing] = Counter()
        for item in items:
            try:
                rows.append(read_row(item, self._access, self.info))
            except UnusableError as error:
                rows.append(nothing)
                reasons[Missing("unusable", f"the answer {error}")] += 1
        return rows, reasons

    def _check_budget(self, count: int) -> None:
        budget = self._service.cfg.budget
        if budget is not None and self.queries + count > budget:
            raise BudgetError(f"budget = {budget} images: {self.queries} were sent and {count} more are asked for")

    def _check_shape(self, x: Tensor) -> None:
        cfg = self._service.cfg.presentation
        shown = (cfg.channels or x.shape[1], *(cfg.size or x.shape[2:]))
        if self.info.shape is not None and shown != self.info.shape:
            raise ConfigError(
                f"{self.identity.name}: takes images {list(self.info.shape)}, these are shown as {list(shown)}; "
                "set presentation.size, presentation.channels or presentation.layout"
            )


@contextmanager
def open_endpoint(
    url: str,
    cfg: Client,
    *,
    access: AnswerAccess,
    transcript: Path | None,
    seal: bytes = b"",
    token: str | None = None,
    sleep: Sleep = time.sleep,
) -> Iterator[Endpoint]:
    """Open what answers at `url`, and close the connection after.

    Args:
        url: of the model, for example `http://127.0.0.1:8080/v2/models/mnist`.
        cfg: how to ask.
        access: what is wanted of each answer.
        transcript: the file that every question and answer is recorded in; one that is there is continued. None
            records nothing, and a killed run may then ask twice.
        seal: key that the transcript's lines are authenticated with; a file written with another key is refused.
        token: sent as `Authorization: Bearer`; None takes $WOOTZ_TOKEN. It is neither recorded nor logged.
        sleep: waits between two tries.

    Raises:
        ConfigError: a URL or a setting that does not fit.
        ModelError: nothing answers there, or no image classifier.
        StoreError: the transcript can not be used, or is about something else.
    """
    url = _checked(url)
    shape = SHAPES[named(cfg.api, url)]
    if shape.template is not None:
        cfg = replace(cfg, template=shape.template)
    with wire(cfg, _secret(token)) as line:
        metadata, certificate = _metadata(line, url, cfg, shape, sleep)
        info = shape.info(url, metadata, cfg)
        if info.batch not in (None, cfg.batch):
            raise ConfigError(f"batch = {cfg.batch}: {url} takes {info.batch} image(s) a request")
        if access == "scores" and info.num_classes is None:
            raise ConfigError(f"{url}: does not say which classes it scores; set classes=NAME,NAME,...")
        settings = {key: value for key, value in config.to_mapping(cfg).items() if key in _RECORDED}
        about = {"url": url, "access": access, "settings": config.digest(settings), "metadata": _digest(metadata)}
        about |= {"certificate": certificate}
        with Transcript(transcript, about, missing(access, info.num_classes), seal) as record:
            identity = describe(url)
            yield Endpoint(Service(url, cfg, info), shape, line, record, identity, access=access, sleep=sleep)


def _forms(cfg: Client, shape: Shape) -> tuple[bool, ...]:
    """Return which forms of a question to try, in order: binary or not."""
    if not shape.binary:
        return (False,)
    return {"auto": (True, False), "always": (True,), "never": (False,)}[cfg.binary]


def _keyed(request: Request, ident: str) -> Request:
    """Let a server that keeps such keys recognize another try; nothing here relies on it."""
    return request._replace(headers={**request.headers, "Idempotency-Key": ident})


def _without_answer(outcome: Outcome) -> Missing | None:
    """Return why there is nothing to read, if there is nothing."""
    reply, tries = outcome.reply, outcome.tries
    if unanswered(reply):
        return Missing("unavailable", f"{reply.problem or f'status {reply.status}'} at the last of {len(tries)} tries")
    if reply.status not in (0, 200):
        return Missing("refused", f"status {reply.status}")
    return Missing("unusable", f"the answer {reply.problem}") if reply.problem else None


def _metadata(wire: Wire, url: str, cfg: Client, shape: Shape, sleep: Sleep) -> tuple[dict[str, Any], str]:
    """Return what is served at the model's URL, and the digest of the TLS certificate."""
    reply = persist(wire, [Request("GET", url)], cfg.response_limit, cfg, "metadata", sleep).reply
    if not reply.answered or (shape.described and reply.status != 200):
        hint = "; set WOOTZ_TOKEN" if reply.status in (401, 403) else ""
        raise ModelError(f"{url}: no model answers there ({reply.problem or f'status {reply.status}'}){hint}")
    try:
        metadata = read_json(reply.body)
        _digest(metadata)
    except (UnusableError, ValueError, RecursionError):
        metadata = None
    if shape.described and not isinstance(metadata, dict):
        raise ModelError(f"{url}: its metadata are no JSON object {reply.problem}".rstrip())
    return metadata if isinstance(metadata, dict) else {}, reply.certificate


def _digest(metadata: Any) -> str:
    return sha256(canonical(metadata))


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r}: is no URL ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r}: must begin with http:// or https:// and a host")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError(f"{parsed.host}: the URL must have no user, query or fragment; a token goes into WOOTZ_TOKEN")
    return url.rstrip("/")


def _secret(token: str | None) -> str:
    token = os.environ.get("WOOTZ_TOKEN", "") if token is None else token
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError("WOOTZ_TOKEN: must be printable ASCII without spaces")
    return token
