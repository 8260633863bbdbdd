"""Questions and answers without a server: against a foreign encoder and decoder, and against nonsense."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from serving.small_service import FACTS, LABEL_ONLY, body, document, images
from wootz.serving import ModelInfo
from wootz.serving.protocol import ProtocolError, decode, encode, labels

SIDES = st.integers(1, 4)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.tuples(SIDES, SIDES, SIDES, SIDES),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["FP32", "UINT8"]),
    st.booleans(),
    st.sampled_from([{"scores": True}, {"label": False}, {"label": True, "scores": False}]),
)
def test_a_foreign_client_is_understood(
    shape: tuple[int, ...], seed: int, kind: str, binary: bool, wanted: dict[str, bool]
) -> None:
    info = ModelInfo(name="m", shape=shape[1:], classes=tuple("abcde"))  # type: ignore[arg-type]
    levels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    x = levels.astype(np.float32) / 255
    slot = InferInput("image", list(shape), kind)
    slot.set_data_from_numpy(x if kind == "FP32" else levels, binary_data=binary)
    outputs = [InferRequestedOutput(name, binary_data=as_bytes) for name, as_bytes in wanted.items()]
    request, length = InferenceServerClient.generate_request_body([slot], outputs=outputs, request_id="é7")

    question = decode(info, request, None if length is None else str(length))
    assert question.images.dtype == np.float32
    assert np.array_equal(question.images, x)
    assert (dict(question.outputs), question.id) == (wanted, "é7")

    answers = np.random.default_rng(seed).normal(size=(shape[0], 5)).astype(np.float32)
    reply, headers = encode(info, question, answers)
    told = headers.get("Inference-Header-Content-Length")
    result = InferResult.from_response_body(reply, header_length=None if told is None else int(told))
    response: Any = result.get_response()
    assert (response["model_name"], response["id"]) == ("m", "é7")
    assert [output["name"] for output in response["outputs"]] == list(wanted)
    for name, there in (("scores", answers), ("label", answers.argmax(1))):
        if name in wanted:
            assert np.array_equal(result.as_numpy(name), there)


def test_nested_data_are_read_row_by_row() -> None:
    x = images(2)
    assert np.array_equal(decode(FACTS, body(x, data=x.tolist())).images, x)


def test_without_a_wish_all_outputs_come_as_json() -> None:
    told = document(images(1))
    assert decode(FACTS, json.dumps(told).encode()).outputs == {"scores": False, "label": False}
    told |= {"parameters": {"binary_data_output": True}, "outputs": [], "id": None}
    assert decode(FACTS, json.dumps(told).encode()).outputs == {"scores": True, "label": True}
    told["outputs"] = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}]
    assert decode(FACTS, json.dumps(told).encode()).outputs == {"label": False, "scores": True}
    assert decode(LABEL_ONLY, body(images(1))).outputs == {"label": False}


def test_an_image_without_an_answer_has_null_scores_and_no_label() -> None:
    answers = images(3).reshape(3, 16)[:, :5]
    answers[1, 0] = np.nan
    question = decode(FACTS, body(images(3)))
    scores, label = json.loads(encode(FACTS, question, answers)[0])["outputs"]
    assert [value is None for value in scores["data"]] == [row == 5 for row in range(15)]
    assert label["data"] == [answers[0].argmax(), -1, answers[2].argmax()]
    assert labels(np.array([3, -1])).tolist() == [3, -1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "pixels"}, "inputs[0].name: must be 'image'"),
        ({"datatype": "FP64"}, "image.datatype: must be one of FP32, UINT8"),
        ({"datatype": ["FP32"]}, "image.datatype: must be"),
        ({"shape": [1, 4, 4]}, "image.shape: must be [N, 1, 4, 4]"),
        ({"shape": [-1, 1, 4, 4]}, "N at least 1"),
        ({"shape": [True, 1, 4, 4]}, "image.shape: must be"),
        ({"shape": [10**4000, 1, 4, 4]}, "finite numbers"),
        ({"shape": [10**18, 1, 4, 4]}, "image.shape: must be"),
        ({"shape": [2, 1, 4, 4]}, "must hold 32 numbers"),
        ({"data": []}, "must hold 16 numbers"),
        ({"data": None}, "must hold 16 numbers"),
        ({"data": {"0": 1}}, "must hold 16 numbers"),
        ({"data": [[[[0.0] * 4] * 3 + [[0.0] * 5]]]}, "nested as shape [1, 1, 4, 4]"),
        ({"data": [[0.0] * 8, [0.0] * 8]}, "nested as shape [1, 1, 4, 4]"),
        ({"data": [0.0] * 15 + [[0.0]]}, "numbers only"),
        ({"data": ["0"] * 16}, "numbers only"),
        ({"data": [True] * 16}, "numbers only"),
        ({"data": [0.5] * 16, "datatype": "UINT8"}, "whole numbers only"),
        ({"data": [256] * 16, "datatype": "UINT8"}, "from 0 to 255 (UINT8)"),
        ({"data": [0.5] * 15 + [1.01]}, "finite and from 0 to 1 (FP32)"),
        ({"data": [0.5] * 15 + [-0.01]}, "finite and from 0 to 1 (FP32)"),
        ({"data": [0] * 15 + [10**400]}, "finite numbers"),
        ({"data": [0] * 15 + [10**18]}, "finite and from 0 to 1 (FP32)"),
        ({"data": [0.5] * 15 + [float("nan")]}, "finite numbers"),
        ({"data": [0.5] * 15 + [float("inf")]}, "finite numbers"),
        ({"parameters": {"binary_data_size": 64}}, "as many bytes follow"),
        ({"parameters": 0}, "parameters of image: must be a JSON object"),
    ],
)
def test_a_bad_input_is_refused_with_what_is_right(changes: dict[str, Any], message: str) -> None:
    told = document(images(1)) | {"id": "7"}
    told["inputs"][0] |= changes
    with pytest.raises(ProtocolError) as refused:
        decode(FACTS, json.dumps(told).encode())
    assert message in str(refused.value)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": 7}, "id: must be a string"),
        ({"id": "x" * 257}, "id: must be a string of at most 256"),
        ({"inputs": []}, "inputs: must be a list of one input"),
        ({"inputs": None}, "inputs: must be"),
        ({"inputs": [1]}, "inputs[0]: must be a JSON object"),
        ({"outputs": {}}, "outputs: must be a list"),
        ({"outputs": [{"name": "logits"}]}, "outputs[0].name: must be one of scores, label"),
        ({"outputs": [{"name": "label"}, {"name": "label"}]}, "each once"),
        ({"outputs": [{"name": "label", "parameters": {"binary_data": 1}}]}, "must be true or false"),
        ({"parameters": {"binary_data_output": "yes"}}, "must be true or false"),
    ],
)
def test_a_bad_request_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as refused:
        decode(FACTS, json.dumps(document(images(1)) | changes).encode())
    assert message in str(refused.value)


def test_who_shows_labels_alone_has_no_scores() -> None:
    with pytest.raises(ProtocolError, match=r"outputs\[0\].name: must be one of label"):
        decode(LABEL_ONLY, json.dumps(document(images(1)) | {"outputs": [{"name": "scores"}]}).encode())


def packed(x: NDArray[np.float32], size: int, tail: bytes) -> tuple[bytes, str]:
    told = body(x, data=None, parameters={"binary_data_size": size})
    return told + tail, str(len(told))


def test_binary_data_must_be_as_long_as_they_say() -> None:
    x = images(1)
    tail = x.tobytes()
    assert np.array_equal(decode(FACTS, *packed(x, 64, tail)).images, x)
    for size, data in ((64, tail[:-1]), (64, tail + b"\0"), (60, tail[:60]), (-64, tail), (10**30, tail)):
        with pytest.raises(ProtocolError, match="binary_data_size: must be 64, and as many bytes follow"):
            decode(FACTS, *packed(x, size, data))
    high = x.copy()
    high[0, 0, 0, 0] = np.nan
    with pytest.raises(ProtocolError, match="finite and from 0 to 1"):
        decode(FACTS, *packed(x, 64, high.tobytes()))
    with pytest.raises(ProtocolError, match="4 bytes follow the JSON, and no input"):
        decode(FACTS, body(x) + b"1234", str(len(body(x))))


@given(st.binary(max_size=60) | st.just(b"[" * 100_000), st.none() | st.text(max_size=20))
@example(b"{}", "-1")
@example(b"{}", "\u0662")
@example(b"{}", "9" * 5000)
@example(b"{}", "3")
@example(b"\xff\xfe{\0}\0", None)
@example(b"1" * 5000, None)
def test_nonsense_is_refused(data: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        decode(FACTS, data, length)


@settings(max_examples=300)
@given(st.data())
def test_whatever_stands_in_a_field_is_read_or_refused(data: st.DataObject) -> None:
    told: Any = document(images(1)) | {"parameters": {"binary_data_output": False}}
    told["outputs"] = [{"name": "label", "parameters": {"binary_data": False}}]
    owner, names = told, data.draw(st.sampled_from(sorted(paths(told))))
    for name in names[:-1]:
        owner = owner[name]
    owner[names[-1]] = data.draw(JSON)
    try:
        question = decode(FACTS, json.dumps(told).encode())
    except ProtocolError:
        return
    assert question.images.shape[1:] == FACTS.shape
    assert ((question.images >= 0) & (question.images <= 1)).all()
    assert encode(FACTS, question, np.zeros((len(question.images), 5), np.float32))


def paths(told: Any, before: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """Return where something stands in a document."""
    found: set[tuple[Any, ...]] = set()
    inside = told.items() if isinstance(told, dict) else enumerate(told) if isinstance(told, list) else ()
    for name, value in inside:
        found |= {(*before, name)} | paths(value, (*before, name))
    return found
