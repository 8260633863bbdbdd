"""A small classifier, and helpers that query it over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from torch import Tensor

from wootz.serving import ModelInfo

INFER = "/v2/models/tiny/infer"
INFO = ModelInfo(name="tiny", shape=(1, 4, 4), classes=tuple("abcde"), data="dots", set_aside=0.25, eps=0.25)
LABEL_ONLY = ModelInfo(name="tiny", shape=(1, 4, 4), classes=tuple("abcde"), access="label")

_WEIGHT = torch.randn(16, 5, generator=torch.Generator().manual_seed(3)) * 3


def scores(x: Tensor) -> Tensor:
    """Images [N, 1, 4, 4] -> log-probabilities [N, 5]."""
    return (x.flatten(1) @ _WEIGHT).log_softmax(1)


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((count, *INFO.shape), np.float32)


def expected_scores(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the correct scores of images."""
    result: NDArray[np.float32] = scores(torch.from_numpy(x)).numpy()
    return result


def document(x: NDArray[Any], **changes: Any) -> dict[str, Any]:
    """Return an inference request as a JSON document; `changes` replace fields of its input tensor."""
    tensor = {"name": "image", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().tolist()} | changes
    return {"id": "7", "inputs": [{key: value for key, value in tensor.items() if value is not None}]}


def body(x: NDArray[Any], **changes: Any) -> bytes:
    return json.dumps(document(x, **changes)).encode()


def query(url: str, path: str = "", **request: Any) -> httpx.Response:
    """Send one request, without the proxies of the environment."""
    method = "POST" if {"content", "json"} & set(request) else "GET"
    return httpx.request(method, url + path, trust_env=False, timeout=60, **request)


def read_metrics(url: str) -> dict[str, float]:
    """Return the samples of /metrics by name and label value."""
    response = query(url, "/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(response.text)
    return {" ".join((s.name, *s.labels.values())): s.value for family in families for s in family.samples}
