"""Every shape of service, over real HTTP."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from suspects.endpoints.asker import pictures
from suspects.endpoints.fault_server import CLASSES, LENGTH, at, scores, serving
from wootz.errors import ConfigError, ModelError
from wootz.suspects.endpoints import (
    SHAPES,
    Client,
    EndpointInfo,
    Presentation,
    Template,
    describe,
    open_endpoint,
    protocol,
    templates,
)
from wootz.suspects.endpoints.answers import UnusableError
from wootz.suspects.endpoints.service import Service, model_in
from wootz.suspects.endpoints.table import named
from wootz.suspects.endpoints.templates import resolve
from wootz.suspects.endpoints.wire import Reply
from wootz.types import Access

OIP, V1 = "/v2/models/digits", "/v1/models/digits"
HF = Client(api="huggingface", classes=tuple(CLASSES))
FREE = Client(api="template", template=Template(answer="/predictions", path=":predict"), classes=tuple(CLASSES))

CASES = [
    (OIP, Client(batch=3)),
    (OIP + "/versions/1", Client(binary="never")),
    (OIP, Client(binary="always", output="scores")),
    (V1, Client(batch=2, classes=tuple(CLASSES))),
    ("/models/digits", HF),
    (V1, FREE),
]


@pytest.mark.parametrize("access", ["label", "scores"])
@pytest.mark.parametrize(("path", "cfg"), CASES)
def test_all_shapes_give_the_same_answers(path: str, cfg: Client, access: Access) -> None:
    x = pictures(5)
    right = torch.tensor([scores(image) for image in x.numpy()])
    with serving() as server, open_endpoint(at(server, path), cfg, access=access, transcript=None) as endpoint:
        answers = endpoint(x)
        assert endpoint(x[:0]).shape == ((0,) if access == "label" else (0, 10))
        assert (endpoint.queries, dict(endpoint.missing)) == (5, {})
        assert endpoint.info.model == "digits"
        assert endpoint.info.classes == tuple(CLASSES)
        assert len(server.bodies) == -(-5 // cfg.batch)
    assert answers.equal(right if access == "scores" else right.argmax(1))


def test_every_row_of_the_table_was_asked() -> None:
    assert {named(cfg.api, f"http://host{path}") for path, cfg in CASES} == set(SHAPES)


def test_json_replaces_binary_only_where_binary_is_refused() -> None:
    x = pictures(4)
    with serving() as server:
        server.tell_binary = False
        with open_endpoint(at(server), Client(budget=4), access="label", transcript=None) as endpoint:
            endpoint(x)
            assert (endpoint.queries, endpoint.missing) == (4, {})
            assert len(server.bodies) == 4  # the refused one was never read
        with open_endpoint(at(server), Client(binary="always"), access="label", transcript=None) as endpoint:
            assert endpoint(x).tolist() == [-1] * 4
            assert endpoint.refused == 4
    with (
        serving(lambda before, _: "no JSON") as server,
        open_endpoint(at(server), Client(), access="label", transcript=None) as endpoint,
    ):
        endpoint(x)
        assert all(LENGTH in headers and "Content-Type" not in headers for headers in server.headers)
        assert server.again == []


def test_two_clients_send_the_same_bytes() -> None:
    x = pictures(4)
    with serving() as server:
        for seed in (0, 1):
            with open_endpoint(at(server), Client(batch=2, seed=seed), access="label", transcript=None) as endpoint:
                endpoint(x)
        assert server.bodies[:2] == server.bodies[2:]
        assert server.bodies[0] != server.bodies[1]


@pytest.mark.parametrize(
    ("path", "cfg", "message"),
    [
        ("/predict", Client(), "does not tell its kind"),
        (V1, Client(), "set classes="),
        (OIP, Client(classes=("a", "b")), "scores 10 classes, and 2 are named"),
        (OIP, Client(output="logits"), "has scores"),
        ("/v2/models/letters", Client(), "of another model"),
        ("/v2/models/missing", Client(), "no model answers there .status 404"),
        ("/models/digits", Client(api="huggingface", batch=2), "takes 1 image"),
        (OIP + "?key=1", Client(), "no user, query or fragment"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_asked(path: str, cfg: Client, message: str) -> None:
    with serving() as server:
        with (
            pytest.raises((ConfigError, ModelError), match=message),
            open_endpoint(at(server, path), cfg, access="scores", transcript=None),
        ):
            pass
        assert server.bodies == []


@pytest.mark.parametrize("url", ["ftp://host/v2/models/m", "http:///v2/models/m", "http://h:x/v2/models/m", "m"])
def test_only_urls_are_asked(url: str) -> None:
    with pytest.raises(ConfigError), open_endpoint(url, Client(), access="label", transcript=None):
        pass


def test_images_must_fit_what_is_served() -> None:
    slot = {"name": "x", "datatype": "UINT8", "shape": [-1, 8, 8, 3]}
    told = {"name": "m", "inputs": [slot], "outputs": []}
    shown = Presentation(scale="0-255", layout="NHWC", channels=3, size=(8, 8), order="BGR")
    info = protocol.info("http://h/v2/models/m", told, Client(presentation=shown))
    assert (info.shape, info.input, info.num_classes, info.batch) == ((3, 8, 8), "x", None, None)
    request = protocol.encode(Service("u", Client(presentation=shown), info), pictures(2), "id", False)
    sent = json.loads(request.body)["inputs"][0]
    assert sent["shape"] == [2, 8, 8, 3]
    assert all(type(value) is int for value in sent["data"])
    with pytest.raises(ConfigError, match="whole gray levels"):
        protocol.info("http://h/v2/models/m", told, Client())
    for inputs, message in (
        ([{**slot, "shape": [-1, 192]}], "images have 4 axes"),
        ([{**slot, "datatype": "BYTES"}], "takes 'BYTES'"),
        ([slot, slot], "takes 2 inputs"),
        ([{"name": "x"}], "not those of the Open Inference Protocol"),
        ("none", "not those of the Open Inference Protocol"),
    ):
        with pytest.raises(ModelError, match=message):
            protocol.info("http://h/v2/models/m", {**told, "inputs": inputs}, Client(presentation=shown))
    with serving() as server:
        server.shape = [-1, 3, 8, 8]
        with (
            open_endpoint(at(server), Client(), access="label", transcript=None) as endpoint,
            pytest.raises(ConfigError, match=r"takes images \[3, 8, 8\], these are shown as \[1, 4, 4\]"),
        ):
            endpoint(pictures(1))
        shown = Presentation(channels=3, size=(8, 8))
        with open_endpoint(at(server), Client(presentation=shown), access="label", transcript=None) as endpoint:
            assert endpoint(pictures(1)) >= 0


def test_json_pointers_are_those_of_the_standard() -> None:
    document = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "m~n": 8}  # RFC 6901, section 5
    assert resolve(document, "") == document
    for pointer, value in (("/foo/1", "baz"), ("/", 0), ("/a~1b", 1), ("/m~0n", 8)):
        assert resolve(document, pointer) == value
    for pointer in ("/foo/2", "/foo/-", "/bar", "/a~1b/0"):
        with pytest.raises(UnusableError):
            resolve(document, pointer)
    with pytest.raises(ConfigError, match="a JSON pointer is empty or begins with /"):
        Template(answer="predictions")


def test_a_template_says_where_images_go_and_answers_are() -> None:
    x = pictures(1)
    for encoder in ("array", "base64"):
        template = Template(path="/predict", encoder=encoder, field="input", single=True, answer="/out/0", item="/best")
        service = Service("http://h", Client(template=template), EndpointInfo(model="m"))
        request = templates.encode(service, x, "id", False)
        assert request.url == "http://h/predict"
        sent = json.loads(request.body)["input"]
        if encoder == "base64":
            image = np.asarray(Image.open(io.BytesIO(base64.b64decode(sent))))
            assert np.array_equal(image, (x[0, 0] * 255).round().numpy())
        else:
            assert np.array_equal(np.array(sent, np.float32), x[0].numpy())
        reply = Reply(True, 200, {}, b'{"out": [{"best": 3}]}')
        assert templates.decode(service, reply, 1, "id") == [3]
        with pytest.raises(UnusableError, match="nothing at '/best'"):
            templates.decode(service, reply._replace(body=b'{"out": [{"worst": 3}]}'), 1, "id")


def test_names_of_models_come_from_their_urls() -> None:
    for url in ("http://h/v2/models/a%20b", "http://h/x/v2/models/a%20b/versions/3"):
        assert model_in(url) == "a b"
    assert model_in("http://h/predict") == "predict"


def test_an_identity_is_the_address_alone(tmp_path: Path) -> None:
    """What an endpoint says of itself is its holder's to change, and so is its certificate."""
    one = describe("http://h/v2/models/m/")
    assert one == describe("http://h/v2/models/m") != describe("http://g/v2/models/m")
    assert (one.name, len(one.digest)) == ("http://h/v2/models/m", 64)
    identities = []
    with serving() as server:
        for classes in (CLASSES, None):
            server.classes = classes
            with open_endpoint(at(server), Client(), access="label", transcript=tmp_path / str(classes)) as endpoint:
                identities.append(endpoint.identity)
    assert identities[0] == identities[1]
