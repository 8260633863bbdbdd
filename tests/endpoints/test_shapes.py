"""Every shape of service, over real HTTP, and beside a foreign implementation of the binary extension."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from endpoints.asker import pictures
from endpoints.fault_server import CLASSES, LENGTH, at, scores, serving
from wootz.endpoints import SHAPES, Client, Facts, Presentation, Template, describe, open_endpoint, protocol
from wootz.endpoints.answers import UnusableError, read_row
from wootz.endpoints.service import Service, model_in
from wootz.endpoints.templates import resolve
from wootz.endpoints.wire import Reply
from wootz.errors import ConfigError, ModelError
from wootz.types import Access

OIP, V1 = "/v2/models/digits", "/v1/models/digits"
HF = Client(api="huggingface", classes=tuple(CLASSES))
FREE = Client(api="template", template=Template(answer="/predictions", path=":predict"), classes=tuple(CLASSES))


@pytest.mark.parametrize("access", ["label", "scores"])
@pytest.mark.parametrize(
    ("path", "cfg"),
    [
        (OIP, Client(batch=3)),
        (OIP + "/versions/1", Client(binary="never")),
        (OIP, Client(binary="always", output="scores")),
        (V1, Client(batch=2, classes=tuple(CLASSES))),
        ("/models/digits", HF),
        (V1, FREE),
    ],
)
def test_all_shapes_give_the_same_answers(path: str, cfg: Client, access: Access) -> None:
    x = pictures(5)
    right = torch.tensor([scores(image) for image in x.numpy()])
    with serving() as server, open_endpoint(at(server, path), cfg, access=access, transcript=None) as endpoint:
        answers = endpoint(x)
        assert endpoint(x[:0]).shape == ((0,) if access == "label" else (0, 10))
        assert (endpoint.queries, dict(endpoint.missing)) == (5, {})
        assert endpoint.facts.model == "digits"
        assert endpoint.facts.classes == tuple(CLASSES)
        assert len(server.bodies) == -(-5 // cfg.batch)
    assert answers.equal(right if access == "scores" else right.argmax(1))


def test_every_row_of_the_table_was_asked() -> None:
    assert set(SHAPES) == {"oip", "tfserving", "huggingface", "template"}


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
    with serving(lambda before, _: "no JSON") as server, open_endpoint(
        at(server), Client(), access="label", transcript=None
    ) as endpoint:  # fmt: skip
        endpoint(x)
        assert all(LENGTH in headers for headers in server.headers)
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
        with pytest.raises((ConfigError, ModelError), match=message), open_endpoint(
            at(server, path), cfg, access="scores", transcript=None
        ):  # fmt: skip
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
    facts = protocol.facts("http://h/v2/models/m", told, Client(presentation=shown))
    assert (facts.shape, facts.input, facts.num_classes, facts.batch) == ((3, 8, 8), "x", None, None)
    request = protocol.encode(Service("u", Client(presentation=shown), facts), pictures(2), "id", False)
    sent = json.loads(request.body)["inputs"][0]
    assert sent["shape"] == [2, 8, 8, 3]
    assert all(type(value) is int for value in sent["data"])
    with pytest.raises(ConfigError, match="whole gray levels"):
        protocol.facts("http://h/v2/models/m", told, Client())
    for inputs, message in (
        ([{**slot, "shape": [-1, 192]}], "images have 4 axes"),
        ([{**slot, "datatype": "BYTES"}], "takes 'BYTES'"),
        ([slot, slot], "takes 2 inputs"),
        ([{"name": "x"}], "not those of the Open Inference Protocol"),
        ("none", "not those of the Open Inference Protocol"),
    ):
        with pytest.raises(ModelError, match=message):
            protocol.facts("http://h/v2/models/m", {**told, "inputs": inputs}, Client(presentation=shown))
    with serving() as server:
        server.shape = [-1, 3, 8, 8]
        with open_endpoint(at(server), Client(), access="label", transcript=None) as endpoint, pytest.raises(
            ConfigError, match=r"takes images \[3, 8, 8\], these are shown as \[1, 4, 4\]"
        ):  # fmt: skip
            endpoint(pictures(1))
        shown = Presentation(channels=3, size=(8, 8))
        with open_endpoint(at(server), Client(presentation=shown), access="label", transcript=None) as endpoint:
            assert endpoint(pictures(1)) >= 0


FACTS = Facts(model="m", classes=("cat", "dog", "eel"), num_classes=3)


@pytest.mark.parametrize(
    ("item", "label", "row"),
    [
        ([0.1, 0.7, 0.2], 1, [0.1, 0.7, 0.2]),
        ("dog", 1, None),
        ("LABEL_2", 2, None),
        (2, 2, None),
        ([{"label": "eel", "score": 0.9}, {"label": "cat", "score": 0.1}], 2, [0.1, 0.0, 0.9]),
        ([{"label": "LABEL_1", "score": 1}], 1, [0.0, 1.0, 0.0]),
    ],
)
def test_answers_of_every_form_are_read(item: Any, label: int, row: list[float] | None) -> None:
    assert read_row(item, "label", FACTS) == label
    if row is None:
        with pytest.raises(UnusableError):
            read_row(item, "scores", FACTS)
    else:
        assert read_row(item, "scores", FACTS).tolist() == pytest.approx(row)


@pytest.mark.parametrize(
    "item",
    [
        None, True, "cow", "LABEL_3", 3, -1, 1.0, 10**400, [], [1.0], [1, 2], [1, 2, 3, 4], ["1", "2", "3"],
        [True, False, True], [1e300, 0, 0], [10**400, 0, 0], [None, 0, 0], [[1, 2, 3]], {"label": "cat"},
        [{"label": "cat"}], [{"score": 1.0}], [{"label": ["cat"], "score": 1.0}], [{"label": "cow", "score": 1.0}],
    ],
)  # fmt: skip
@pytest.mark.parametrize("access", ["label", "scores"])
def test_what_says_nothing_is_refused(item: Any, access: Access) -> None:
    with pytest.raises(UnusableError):
        read_row(item, access, FACTS)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["label", "scores"]))
def test_no_answer_ends_the_run(item: Any, access: Access) -> None:
    try:
        row = read_row(item, access, FACTS)
    except UnusableError:
        return
    assert row.shape == (() if access == "label" else (3,))


@given(st.dictionaries(st.sampled_from(["name", "inputs", "outputs", "parameters"]), json_values))
def test_no_metadata_are_more_than_a_plain_error(told: dict[str, Any]) -> None:
    try:
        facts = protocol.facts("http://h/v2/models/m", {"name": "m"} | told, Client())
    except (ConfigError, ModelError):
        return
    assert facts.model == "m"


@given(
    st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), json_values),
    st.binary(max_size=40),
    st.sampled_from([None, "0", "-1", "5", "x", "99999999999999"]),
)
def test_no_document_ends_the_run(output: dict[str, Any], tail: bytes, length: str | None) -> None:
    told = {"model_name": "m", "outputs": [{"shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} | output]}
    body = json.dumps(told).encode()
    headers = {} if length is None else {LENGTH.lower(): str(len(body)) if length == "x" else length}
    reply = Reply(True, 200, headers, body + (tail if headers else b""))
    try:
        items = protocol.decode(Service("u", Client(), FACTS), reply, 1, "id")
    except UnusableError:
        return
    assert len(items) == 1


pixels = arrays.arrays(
    np.float32, st.tuples(*(st.integers(1, 3),) * 4), elements=st.floats(0, 1, width=32)
)  # fmt: skip


@given(pixels, st.booleans(), st.sampled_from(["FP32", "FP64"]))
def test_questions_are_those_of_a_foreign_client(image: np.ndarray[Any, Any], binary: bool, datatype: str) -> None:
    facts = Facts(model="m", input="x", datatype=datatype, output="y")
    ours = protocol.encode(Service("http://h/v2/models/m", Client(), facts), torch.from_numpy(image), "7", binary)
    slot = InferInput("x", list(image.shape), datatype)
    slot.set_data_from_numpy(image.astype(np.float32 if datatype == "FP32" else np.float64), binary_data=binary)
    wanted = InferRequestedOutput("y", binary_data=binary)
    body, length = InferenceServerClient.generate_request_body([slot], [wanted], request_id="7")
    size = int(ours.headers.get(LENGTH, len(ours.body)))
    theirs = json.loads(body[:length])
    if not binary:  # the foreign client says `false` where we say nothing
        theirs["outputs"][0].pop("parameters")
    assert json.loads(ours.body[:size]) == theirs
    assert ours.body[size:] == (body[length:] if binary else b"")


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(width=32)),
    st.sampled_from(["FP32", "FP64"]),
    st.sampled_from(["sole", "second"]),
)
def test_answers_are_read_as_a_foreign_client_reads_them(
    values: np.ndarray[Any, Any], datatype: str, place: str
) -> None:
    data = values.astype(protocol.DTYPES[datatype])
    slots = [("y", data)] if place == "sole" else [("other", np.arange(3, dtype=np.int64)), ("y", data)]
    names = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
    outputs = [
        {
            "name": name, "shape": list(part.shape), "datatype": names[part.dtype.name],
            "parameters": {"binary_data_size": part.nbytes},
        }
        for name, part in slots
    ]  # fmt: skip
    told = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    body = told + b"".join(part.tobytes() for _, part in slots)
    theirs = InferenceServerClient.parse_response_body(body, header_length=len(told)).as_numpy("y")
    facts = Facts(model="m", output="y")
    reply = Reply(True, 200, {LENGTH.lower(): str(len(told))}, body)
    ours = protocol.decode(Service("u", Client(), facts), reply, len(values), "7")
    assert np.array_equal(np.stack(ours), theirs, equal_nan=True)
    for bad in (body[:-1], body + b"\0"):
        with pytest.raises(UnusableError):
            protocol.decode(Service("u", Client(), facts), reply._replace(body=bad), len(values), "7")


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


def test_names_of_models_come_from_their_urls() -> None:
    for url in ("http://h/v2/models/a%20b", "http://h/x/v2/models/a%20b/versions/3"):
        assert model_in(url) == "a b"
    assert model_in("http://h/predict") == "predict"


def test_an_identity_is_of_url_metadata_and_certificate(tmp_path: Path) -> None:
    one = describe("http://h/v2/models/m/", {"name": "m"})
    assert one == describe("http://h/v2/models/m", {"name": "m"})
    others = [
        describe("http://g/v2/models/m", {"name": "m"}),
        describe(one.name, {}),
        describe(one.name, {}, "sha256:"),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 4
    assert (one.name, len(one.digest)) == ("http://h/v2/models/m", 64)
    with serving() as server:
        for classes in (CLASSES, CLASSES, None):
            server.classes = classes
            with open_endpoint(at(server), Client(), access="label", transcript=tmp_path / str(classes)) as endpoint:
                others.append(endpoint.identity)
    assert others[3] == others[4] != others[5]
