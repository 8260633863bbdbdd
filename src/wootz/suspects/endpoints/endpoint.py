"""A remote model as a `Predict`: every image is sent at most once, within a query budget."""

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
from wootz.errors import BudgetError, ConfigError, InconclusiveError, ModelError
from wootz.store import canonical, sha256, tensor_digest
from wootz.suspects.endpoints.adapters import API_ADAPTERS, ApiAdapter, detect_api
from wootz.suspects.endpoints.client_config import Client
from wootz.suspects.endpoints.context import EndpointContext, EndpointInfo, Identity, check_info, endpoint_identity
from wootz.suspects.endpoints.parsing import Answer, UnusableAnswerError, missing_answer, parse_answer, parse_json
from wootz.suspects.endpoints.transcript import MissingReason, Transcript
from wootz.suspects.endpoints.transport import HttpTransport, Request, SendResult, open_transport, send_with_retry
from wootz.types import AnswerAccess

Sleep = Callable[[float], None]

_DIGESTED_SETTINGS = ("api", "presentation", "template", "classes", "input", "output")
"""The settings that change the meaning of a query; a transcript is continued with the same ones only."""


class Endpoint:
    """A remote model, images [N, C, H, W] -> answers; created by `open_endpoint`.

    Attributes:
        info: the metadata that the endpoint reports.
        identity: the URL and its digest.
    """

    def __init__(
        self,
        context: EndpointContext,
        adapter: ApiAdapter,
        transport: HttpTransport,
        transcript: Transcript,
        identity: Identity,
        *,
        access: AnswerAccess,
        resend: bool,
        sleep: Sleep,
    ) -> None:
        self._context, self._adapter, self._transport, self._transcript = context, adapter, transport, transcript
        self._access, self._resend, self._sleep = access, resend, sleep
        self._encodings = _binary_encodings(context.cfg, adapter)
        self.info: EndpointInfo = context.info
        self.identity = identity

    @property
    def queries(self) -> int:
        """The number of images sent so far, including earlier runs with the same transcript."""
        return len(self._transcript.answers)

    @property
    def missing(self) -> Mapping[MissingReason, int]:
        """The number of images without an answer, by reason."""
        return self._transcript.missing

    @property
    def refused(self) -> int:
        """The number of images that the endpoint refused to answer."""
        return sum(count for reason, count in self.missing.items() if reason.kind == "refused")

    @property
    def transcript_digest(self) -> str:
        """SHA-256 of the last line of the transcript, which covers all lines before it."""
        return self._transcript.digest

    def notes(self) -> tuple[str, ...]:
        """Return one line per reason why images have no answer."""
        return tuple(
            f"{count} images without an answer: {reason.kind}, {reason.detail}"
            for reason, count in self.missing.items()
        )

    def __call__(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] in [0, 1] -> scores float32 [N, K], or labels int64 [N].

        An image that was sent before keeps its first answer, or stays missing, and costs no query.

        Raises:
            BudgetError: these images would exceed the budget; none of them is sent.
            ConfigError: the preprocessed images do not fit the endpoint.
            InconclusiveError: the endpoint is unavailable, and was opened with `resend`.
            StoreError: the transcript cannot be written; no further image is sent.
        """
        images = x.detach().float().cpu()
        self._check_shape(images)
        digests = [tensor_digest(image) for image in images]
        answers = self._transcript.answers
        new_rows = {digest: row for row, digest in enumerate(digests) if digest not in answers}
        self._check_budget(len(new_rows))
        new_digests, size = list(new_rows), self._context.cfg.batch
        for batch in (new_digests[start : start + size] for start in range(0, len(new_digests), size)):
            self._query_batch(batch, images[[new_rows[digest] for digest in batch]])
        result = [answers[digest] for digest in digests]
        placeholder = missing_answer(self._access, self.info.num_classes)
        return torch.from_numpy(np.stack(result) if result else placeholder[None][:0]).to(x.device)

    def _query_batch(self, digests: Sequence[str], x: Tensor) -> None:
        cfg, request_id = self._context.cfg, str(uuid5(NAMESPACE_OID, " ".join(digests)))
        requests = [
            _with_idempotency_key(self._adapter.encode_request(self._context, x, request_id, binary), request_id)
            for binary in self._encodings
        ]
        query = self._transcript.record_query(request_id, digests, [request.body for request in requests])
        limit = cfg.response_limit + (len(digests) - 1) * (cfg.response_limit // 16)
        result = send_with_retry(self._transport, requests, limit, cfg, request_id, self._sleep)
        if result.encoding or result.response.status == 200:
            self._encodings = (self._encodings[result.encoding],)
        answers, reasons = self._parse_result(result, len(digests), request_id)
        self._transcript.record_answers(query, answers, reasons, result.statuses, result.response.body)
        if self._resend and result.response.retryable:
            (reason,) = reasons
            raise InconclusiveError(
                f"{self.identity.name}: gave no answer ({reason.detail}); {self.queries - len(digests):,} queries are "
                "recorded and will not be repeated; repeat the command to go on"
            )

    def _parse_result(
        self, result: SendResult, count: int, request_id: str
    ) -> tuple[list[Answer], Counter[MissingReason]]:
        """Return one answer per image, and the number of missing answers by reason."""
        placeholder, reason = missing_answer(self._access, self.info.num_classes), _missing_reason(result)
        if reason is not None:
            return [placeholder] * count, Counter({reason: count})
        try:
            items = self._adapter.decode_response(self._context, result.response, count, request_id)
        except UnusableAnswerError as error:
            return [placeholder] * count, Counter({_unusable(error): count})
        answers: list[Answer] = []
        reasons: Counter[MissingReason] = Counter()
        for item in items:
            try:
                answers.append(parse_answer(item, self._access, self.info))
            except UnusableAnswerError as error:
                answers.append(placeholder)
                reasons[_unusable(error)] += 1
        return answers, reasons

    def _check_budget(self, count: int) -> None:
        budget = self._context.cfg.budget
        if budget is not None and self.queries + count > budget:
            raise BudgetError(f"budget = {budget} images: {self.queries} were sent and {count} more are requested")

    def _check_shape(self, x: Tensor) -> None:
        cfg = self._context.cfg.presentation
        shape = (cfg.channels or x.shape[1], *(cfg.size or x.shape[2:]))
        if self.info.shape is not None and shape != self.info.shape:
            raise ConfigError(
                f"{self.identity.name}: takes images {list(self.info.shape)}, these would be sent as {list(shape)}; "
                "set presentation.size, presentation.channels or presentation.layout"
            )


@contextmanager
def open_endpoint(
    url: str,
    cfg: Client,
    *,
    access: AnswerAccess,
    transcript: Path | None,
    mac_key: bytes = b"",
    token: str | None = None,
    resend: bool = False,
    sleep: Sleep = time.sleep,
) -> Iterator[Endpoint]:
    """Open the model at `url`; the connection and the transcript are closed at exit.

    Args:
        url: the URL of the model, for example `http://127.0.0.1:8080/v2/models/mnist`.
        cfg: the settings of the client.
        access: whether scores or labels are read from the answers.
        transcript: the file that every query and answer is recorded in; an existing one is continued. None records
            nothing, so an interrupted run may send an image twice.
        mac_key: the key that authenticates the lines of the transcript; a file written with another key is rejected.
        token: sent as `Authorization: Bearer`; None takes $WOOTZ_TOKEN. It is neither recorded nor logged.
        resend: whether images that the transcript has no answer to are sent again, and an unavailable endpoint is an
            InconclusiveError. Otherwise such images stay missing, as a test needs it: each of its images is sent once.
        sleep: waits for a number of seconds between two attempts.

    Raises:
        ConfigError: the URL or a setting is invalid, or does not fit the endpoint.
        InconclusiveError: there is no response from `url`, with `resend`.
        ModelError: there is no response from `url`, or it does not serve an image classifier.
        StoreError: the transcript cannot be used, or belongs to another endpoint or other settings.
    """
    url = _validate_url(url)
    adapter = API_ADAPTERS[detect_api(cfg.api, url)]
    if adapter.template is not None:
        cfg = replace(cfg, template=adapter.template)
    with open_transport(cfg, _bearer_token(token)) as transport:
        metadata, certificate = _fetch_metadata(transport, url, cfg, adapter, sleep, resend=resend)
        info = adapter.read_info(url, metadata, cfg)
        check_info(url, info)
        if info.batch not in (None, cfg.batch):
            raise ConfigError(
                f"batch = {cfg.batch}: {url} takes {info.batch} image(s) per request; set batch={info.batch}"
            )
        if access == "scores" and info.num_classes is None:
            raise ConfigError(f"{url}: its metadata do not name the classes; set classes=NAME,NAME,...")
        settings = {key: value for key, value in config.to_mapping(cfg).items() if key in _DIGESTED_SETTINGS}
        header = {
            "url": url,
            "access": access,
            "settings": config.digest(settings),
            "metadata": sha256(canonical(metadata)),
            "certificate": certificate,
        }
        with Transcript(transcript, header, missing_answer(access, info.num_classes), mac_key) as record:
            if resend:
                record.forget_missing()
            context = EndpointContext(url, cfg, info)
            identity = endpoint_identity(url)
            yield Endpoint(context, adapter, transport, record, identity, access=access, resend=resend, sleep=sleep)


def _binary_encodings(cfg: Client, adapter: ApiAdapter) -> tuple[bool, ...]:
    """Return the encodings of a request to try, in order; True is the binary one."""
    if not adapter.supports_binary:
        return (False,)
    return {"auto": (True, False), "always": (True,), "never": (False,)}[cfg.binary]


def _with_idempotency_key(request: Request, request_id: str) -> Request:
    """Add a header by which a server can recognize a repeated request; the client does not depend on it."""
    return request._replace(headers={**request.headers, "Idempotency-Key": request_id})


def _missing_reason(result: SendResult) -> MissingReason | None:
    """Return why a response has no answers to parse; None if it may have some."""
    response, attempts = result.response, len(result.statuses)
    if response.retryable:
        problem = response.problem or f"status {response.status}"
        return MissingReason("unavailable", f"{problem} at the last of {attempts} tries")
    if response.status not in (0, 200):
        return MissingReason("refused", f"status {response.status}")
    return MissingReason("unusable", f"the answer {response.problem}") if response.problem else None


def _unusable(error: UnusableAnswerError) -> MissingReason:
    return MissingReason("unusable", f"the answer {error}")


def _fetch_metadata(
    transport: HttpTransport, url: str, cfg: Client, adapter: ApiAdapter, sleep: Sleep, *, resend: bool
) -> tuple[dict[str, Any], str]:
    """Return the metadata at the URL of the model, and the digest of the TLS certificate."""
    response = send_with_retry(transport, [Request("GET", url)], cfg.response_limit, cfg, "metadata", sleep).response
    if not response.received or (adapter.requires_metadata and response.status != 200):
        hint = "; set WOOTZ_TOKEN" if response.status in (401, 403) else ""
        kind = InconclusiveError if resend and response.retryable else ModelError
        raise kind(f"{url}: no model answers there ({response.problem or f'status {response.status}'}){hint}")
    try:
        metadata = parse_json(response.body)
        canonical(metadata)
    except (UnusableAnswerError, ValueError, RecursionError):
        metadata = None
    if adapter.requires_metadata and not isinstance(metadata, dict):
        raise ModelError(f"{url}: its metadata are not a JSON object {response.problem}".rstrip())
    return metadata if isinstance(metadata, dict) else {}, response.certificate


def _validate_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"{url!r}: is not a URL ({error})") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"{url!r}: must begin with http:// or https:// and a host")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError(f"{parsed.host}: the URL must have no user, query or fragment; set a token by WOOTZ_TOKEN")
    return url.rstrip("/")


def _bearer_token(token: str | None) -> str:
    token = os.environ.get("WOOTZ_TOKEN", "") if token is None else token
    if not all("!" <= character <= "~" for character in token):
        raise ConfigError("WOOTZ_TOKEN: must be printable ASCII without spaces")
    return token
