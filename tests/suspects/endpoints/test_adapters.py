"""Every API adapter, over HTTP."""

from __future__ import annotations

import base64
import io
import json
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from suspects.endpoints.client_process import random_images
from suspects.endpoints.fault_server import CLASSES, LENGTH, run_fault_server, scores, url_of
from wootz.errors import ConfigError, ModelError
from wootz.suspects.endpoints import (
    API_ADAPTERS,
    Client,
    EndpointInfo,
    Preprocessing,
    Template,
    endpoint_identity,
    open_endpoint,
    open_inference,
)
from wootz.suspects.endpoints.adapters import (
    decode_template_response,
    detect_api,
    encode_template_request,
    resolve_pointer,
)
from wootz.suspects.endpoints.context import EndpointContext, model_name_from_url
from wootz.suspects.endpoints.parsing import UnusableAnswerError
from wootz.suspects.endpoints.transport import Response
from wootz.types import AnswerAccess

OIP, V1 = "/v2/models/digits", "/v1/models/digits"
HF = Client(api="huggingface", classes=tuple(CLASSES))
TEMPLATE = Client(api="template", template=Template(answer="/predictions", path=":predict"), classes=tuple(CLASSES))

CASES = [
    (OIP, Client(batch=3)),
    (OIP + "/versions/1", Client(binary="never")),
    (OIP, Client(binary="always", output="scores")),
    (V1, Client(batch=2, classes=tuple(CLASSES))),
    ("/models/digits", HF),
    (V1, TEMPLATE),
]


@pytest.mark.parametrize("access", ["label", "scores"])
@pytest.mark.parametrize(("path", "cfg"), CASES)
def test_all_apis_give_the_same_answers(path: str, cfg: Client, access: AnswerAccess) -> None:
    x = random_images(5)
    expected = torch.tensor([scores(image) for image in x.numpy()])
    with (
        run_fault_server() as server,
        open_endpoint(url_of(server, path), cfg, access=access, transcript=None) as endpoint,
    ):
        answers = endpoint(x)
        assert endpoint(x[:0]).shape == ((0,) if access == "label" else (0, 10))
        assert (endpoint.queries, dict(endpoint.missing)) == (5, {})
        assert endpoint.info.model == "digits"
        assert endpoint.info.classes == tuple(CLASSES)
        assert len(server.bodies) == -(-5 // cfg.batch)
    assert answers.equal(expected if access == "scores" else expected.argmax(1))


def test_every_adapter_has_a_case() -> None:
    assert {detect_api(cfg.api, f"http://host{path}") for path, cfg in CASES} == set(API_ADAPTERS)


def test_json_replaces_binary_only_after_a_rejection() -> None:
    x = random_images(4)
    with run_fault_server() as server:
        server.accepts_binary = False
        with open_endpoint(url_of(server), Client(budget=4), access="label", transcript=None) as endpoint:
            endpoint(x)
            assert (endpoint.queries, endpoint.missing) == (4, {})
            assert len(server.bodies) == 4  # the server does not record the rejected one
        with open_endpoint(url_of(server), Client(binary="always"), access="label", transcript=None) as endpoint:
            assert endpoint(x).tolist() == [-1] * 4
            assert endpoint.refused == 4
    with (
        run_fault_server(lambda before, _: "no JSON") as server,
        open_endpoint(url_of(server), Client(), access="label", transcript=None) as endpoint,
    ):
        endpoint(x)
        assert all(LENGTH in headers and "Content-Type" not in headers for headers in server.headers)
        assert server.repeated == []


def test_two_clients_send_the_same_bytes() -> None:
    x = random_images(4)
    with run_fault_server() as server:
        for seed in (0, 1):
            with open_endpoint(url_of(server), Client(batch=2, seed=seed), access="label", transcript=None) as endpoint:
                endpoint(x)
        assert server.bodies[:2] == server.bodies[2:]
        assert server.bodies[0] != server.bodies[1]


@pytest.mark.parametrize(
    ("path", "cfg", "message"),
    [
        ("/predict", Client(), "the API cannot be detected"),
        (V1, Client(), "set classes="),
        (OIP, Client(classes=("a", "b")), "scores 10 classes, and 2 are named"),
        (OIP, Client(output="logits"), "has 'scores'"),
        ("/v2/models/letters", Client(), "of another model"),
        ("/v2/models/missing", Client(), "no model answers there .status 404"),
        ("/models/digits", Client(api="huggingface", batch=2), "takes 1 image"),
        (OIP + "?key=1", Client(), "no user, query or fragment"),
    ],
)
def test_settings_that_do_not_fit_are_rejected_before_any_query(path: str, cfg: Client, message: str) -> None:
    with run_fault_server() as server:
        with (
            pytest.raises((ConfigError, ModelError), match=message),
            open_endpoint(url_of(server, path), cfg, access="scores", transcript=None),
        ):
            pass
        assert server.bodies == []


@pytest.mark.parametrize("url", ["ftp://host/v2/models/m", "http:///v2/models/m", "http://h:x/v2/models/m", "m"])
def test_invalid_urls_are_rejected(url: str) -> None:
    with pytest.raises(ConfigError), open_endpoint(url, Client(), access="label", transcript=None):
        pass


def test_images_must_fit_the_metadata() -> None:
    tensor = {"name": "x", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}
    metadata = {"name": "m", "inputs": [tensor], "outputs": []}
    cfg = Client(presentation=Preprocessing(scale="0-255", layout="NHWC", channels=3, size=(8, 8), order="BGR"))
    info = open_inference.read_info("http://h/v2/models/m", metadata, cfg)
    assert (info.shape, info.input, info.num_classes, info.batch) == ((3, 8, 8), "x", None, None)
    request = open_inference.encode_request(EndpointContext("u", cfg, info), random_images(2), "id", False)
    sent = json.loads(request.body)["inputs"][0]
    assert sent["shape"] == [2, 8, 8, 3]
    assert all(type(value) is int for value in sent["data"])
    with pytest.raises(ConfigError, match="whole gray levels"):
        open_inference.read_info("http://h/v2/models/m", metadata, Client())
    for inputs, message in (
        ([{**tensor, "shape": [-1, 192]}], "images have 4 axes"),
        ([{**tensor, "datatype": "BYTES"}], "takes 'BYTES'"),
        ([tensor, tensor], "takes 2 inputs"),
        ([{"name": "x"}], "not those of the Open Inference Protocol"),
        ("none", "not those of the Open Inference Protocol"),
    ):
        with pytest.raises(ModelError, match=message):
            open_inference.read_info("http://h/v2/models/m", {**metadata, "inputs": inputs}, cfg)
    with run_fault_server() as server:
        server.shape = [-1, 3, 8, 8]
        with (
            open_endpoint(url_of(server), Client(), access="label", transcript=None) as endpoint,
            pytest.raises(ConfigError, match=r"takes images \[3, 8, 8\], these would be sent as \[1, 4, 4\]"),
        ):
            endpoint(random_images(1))
        cfg = Client(presentation=Preprocessing(channels=3, size=(8, 8)))
        with open_endpoint(url_of(server), cfg, access="label", transcript=None) as endpoint:
            assert endpoint(random_images(1)) >= 0


def test_json_pointers_of_the_standard() -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8}  # RFC 6901, section 5
    assert resolve_pointer(document, "") == document
    for pointer, value in (("/foo/1", "baz"), ("/", 0), ("/a~1b", 1), ("/m~0n", 8)):
        assert resolve_pointer(document, pointer) == value
    for pointer in ("/foo/2", "/foo/-", "/bar", "/a~1b/0"):
        with pytest.raises(UnusableAnswerError):
            resolve_pointer(document, pointer)
    with pytest.raises(ConfigError, match="a JSON pointer is empty or begins with /"):
        Template(answer="predictions")


def test_template_requests_and_responses() -> None:
    x = random_images(1)
    for encoder in ("array", "base64"):
        template = Template(path="/predict", encoder=encoder, field="input", single=True, answer="/out/0", item="/best")
        context = EndpointContext("http://h", Client(template=template), EndpointInfo(model="m"))
        request = encode_template_request(context, x, "id", False)
        assert request.url == "http://h/predict"
        sent = json.loads(request.body)["input"]
        if encoder == "base64":
            image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sent))))
            assert np.array_equal(image, (x[0, 0] * 255).round().numpy())
        else:
            assert np.array_equal(np.array(sent, np.float32), x[0].numpy())
        response = Response(True, 200, {}, b'{"out": [{"best": 3}]}')
        assert decode_template_response(context, response, 1, "id") == [3]
        with pytest.raises(UnusableAnswerError, match="nothing at '/best'"):
            decode_template_response(context, response._replace(body=b'{"out": [{"worst": 3}]}'), 1, "id")


def test_model_names_come_from_urls() -> None:
    for url in ("http://h/v2/models/a%20b", "http://h/x/v2/models/a%20b/versions/3"):
        assert model_name_from_url(url) == "a b"
    assert model_name_from_url("http://h/predict") == "predict"


def test_an_identity_depends_on_the_address_only(tmp_path: Path) -> None:
    """The operator can change the metadata and the certificate."""
    identity = endpoint_identity("http://h/v2/models/m/")
    assert identity == endpoint_identity("http://h/v2/models/m") != endpoint_identity("http://g/v2/models/m")
    assert (identity.name, len(identity.digest)) == ("http://h/v2/models/m", 64)
    identities = []
    with run_fault_server() as server:
        for classes in (CLASSES, None):
            server.classes = classes
            with open_endpoint(
                url_of(server), Client(), access="label", transcript=tmp_path / str(classes)
            ) as endpoint:
                identities.append(endpoint.identity)
    assert identities[0] == identities[1]


HUGE = [10**10, 1 << 62, 10**4000]


@pytest.mark.parametrize(
    ("shape", "output"),
    [
        *((None, [-1, side]) for side in HUGE),
        *(([-1, 1, side, side], None) for side in HUGE),
        ([-1, 3, 4000, 4000], None),
        ([2] * 500_000, None),
        (None, [2] * 500_000),
        (None, [-1, -(10**30)]),
        (None, [-1, 1e308]),
        (None, [-1, "9" * 5000]),
        ("9" * 9, None),
        (None, {"a": 1}),
    ],
    ids=str,
)
@pytest.mark.parametrize("access", ["label", "scores"])
def test_metadata_are_bounded_before_anything_is_allocated(shape: Any, output: Any, access: AnswerAccess) -> None:
    limit = (2 << 30) + int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    with run_fault_server() as server:
        server.shape = server.shape if shape is None else shape
        server.output_shape = server.output_shape if output is None else output
        server.classes = None
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
        try:
            with (
                pytest.raises(ModelError) as caught,
                open_endpoint(url_of(server), Client(response_limit=1 << 24), access=access, transcript=None),
            ):
                pytest.fail("was opened")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)
    assert len(str(caught.value)) < 300


def test_answers_of_too_many_axes_are_unusable() -> None:
    payload = {"model_name": "digits", "outputs": [{"datatype": "FP32", "shape": [1] * 300_000, "data": [1.0]}]}
    context = EndpointContext("http://h/v2/models/digits", Client(), EndpointInfo(model="digits"))
    response = Response(received=True, status=200, body=json.dumps(payload).encode())
    with pytest.raises(UnusableAnswerError):
        open_inference.decode_response(context, response, 1, "id")
