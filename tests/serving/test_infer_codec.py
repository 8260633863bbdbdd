"""Inference requests and responses without a server, compared with the reference client and with invalid input."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from serving.small_service import INFO, LABEL_ONLY, body, document, images
from wootz.serving import ModelInfo
from wootz.serving.infer_codec import ProtocolError, decode_request, encode_response, top1_labels

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
def test_requests_and_responses_of_the_reference_client(
    shape: tuple[int, ...], seed: int, datatype: str, binary: bool, binary_outputs: dict[str, bool]
) -> None:
    info = ModelInfo(name="m", shape=shape[1:], classes=tuple("abcde"))  # type: ignore[arg-type]
    levels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    x = levels.astype(np.float32) / 255
    tensor = InferInput("image", list(shape), datatype)
    tensor.set_data_from_numpy(x if datatype == "FP32" else levels, binary_data=binary)
    outputs = [InferRequestedOutput(name, binary_data=as_bytes) for name, as_bytes in binary_outputs.items()]
    body, length = InferenceServerClient.generate_request_body([tensor], outputs=outputs, request_id="é7")

    request = decode_request(info, body, None if length is None else str(length))
    assert request.images.dtype == np.float32
    assert np.array_equal(request.images, x)
    assert (dict(request.outputs), request.request_id) == (binary_outputs, "é7")

    answers = np.random.default_rng(seed).normal(size=(shape[0], 5)).astype(np.float32)
    response_body, headers = encode_response(info, request, answers)
    header_length = headers.get("Inference-Header-Content-Length")
    result = InferResult.from_response_body(
        response_body, header_length=None if header_length is None else int(header_length)
    )
    response: Any = result.get_response()
    assert (response["model_name"], response["id"]) == ("m", "é7")
    assert [output["name"] for output in response["outputs"]] == list(binary_outputs)
    for name, expected in (("scores", answers), ("label", answers.argmax(1))):
        if name in binary_outputs:
            assert np.array_equal(result.as_numpy(name), expected)


def test_nested_data_are_read_row_by_row() -> None:
    x = images(2)
    assert np.array_equal(decode_request(INFO, body(x, data=x.tolist())).images, x)


def test_without_selection_all_outputs_are_json() -> None:
    payload = document(images(1))
    assert decode_request(INFO, json.dumps(payload).encode()).outputs == {"scores": False, "label": False}
    payload |= {"parameters": {"binary_data_output": True}, "outputs": [], "id": None}
    assert decode_request(INFO, json.dumps(payload).encode()).outputs == {"scores": True, "label": True}
    payload["outputs"] = [{"name": "label", "parameters": {"binary_data": False}}, {"name": "scores"}]
    assert decode_request(INFO, json.dumps(payload).encode()).outputs == {"label": False, "scores": True}
    assert decode_request(LABEL_ONLY, body(images(1))).outputs == {"label": False}


def test_a_missing_answer_has_null_scores_and_label_minus_one() -> None:
    answers = images(3).reshape(3, 16)[:, :5]
    answers[1, 0] = np.nan
    request = decode_request(INFO, body(images(3)))
    scores, label = json.loads(encode_response(INFO, request, answers)[0])["outputs"]
    assert [value is None for value in scores["data"]] == [row == 5 for row in range(15)]
    assert label["data"] == [answers[0].argmax(), -1, answers[2].argmax()]
    assert top1_labels(np.array([3, -1])).tolist() == [3, -1]


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
        ({"parameters": {"binary_data_size": 64}}, "as many bytes must follow"),
        ({"parameters": 0}, "parameters of image: must be a JSON object"),
    ],
)
def test_an_invalid_input_is_rejected(changes: dict[str, Any], message: str) -> None:
    payload = document(images(1)) | {"id": "7"}
    payload["inputs"][0] |= changes
    with pytest.raises(ProtocolError) as raised:
        decode_request(INFO, json.dumps(payload).encode())
    assert message in str(raised.value)
    assert raised.value.status == 400


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
def test_an_invalid_request_is_rejected(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ProtocolError) as raised:
        decode_request(INFO, json.dumps(document(images(1)) | changes).encode())
    assert message in str(raised.value)


def test_a_label_only_service_has_no_scores() -> None:
    with pytest.raises(ProtocolError, match=r"outputs\[0\].name: must be one of label"):
        decode_request(LABEL_ONLY, json.dumps(document(images(1)) | {"outputs": [{"name": "scores"}]}).encode())


def binary_body(x: NDArray[np.float32], size: int, tail: bytes) -> tuple[bytes, str]:
    header = body(x, data=None, parameters={"binary_data_size": size})
    return header + tail, str(len(header))


def test_binary_data_must_have_the_declared_size() -> None:
    x = images(1)
    tail = x.tobytes()
    assert np.array_equal(decode_request(INFO, *binary_body(x, 64, tail)).images, x)
    for size, data in ((64, tail[:-1]), (64, tail + b"\0"), (60, tail[:60]), (-64, tail), (10**30, tail)):
        with pytest.raises(ProtocolError, match="binary_data_size: must be 64, and as many bytes must follow"):
            decode_request(INFO, *binary_body(x, size, data))
    with_nan = x.copy()
    with_nan[0, 0, 0, 0] = np.nan
    with pytest.raises(ProtocolError, match="finite and from 0 to 1"):
        decode_request(INFO, *binary_body(x, 64, with_nan.tobytes()))
    with pytest.raises(ProtocolError, match="4 bytes follow the JSON, and no input"):
        decode_request(INFO, body(x) + b"1234", str(len(body(x))))


@given(st.binary(max_size=60) | st.just(b"[" * 100_000), st.none() | st.text(max_size=20))
@example(b"{}", "-1")
@example(b"{}", "\u0662")
@example(b"{}", "9" * 5000)
@example(b"{}", "3")
@example(b"\xff\xfe{\0}\0", None)
@example(b"1" * 5000, None)
def test_arbitrary_bytes_are_rejected(data: bytes, length: str | None) -> None:
    with pytest.raises(ProtocolError):
        decode_request(INFO, data, length)


@settings(max_examples=300)
@given(st.data())
def test_any_field_value_is_decoded_or_rejected(data: st.DataObject) -> None:
    payload: Any = document(images(1)) | {"parameters": {"binary_data_output": False}}
    payload["outputs"] = [{"name": "label", "parameters": {"binary_data": False}}]
    owner, names = payload, data.draw(st.sampled_from(sorted(paths(payload))))
    for name in names[:-1]:
        owner = owner[name]
    owner[names[-1]] = data.draw(JSON)
    try:
        request = decode_request(INFO, json.dumps(payload).encode())
    except ProtocolError:
        return
    assert request.images.shape[1:] == INFO.shape
    assert ((request.images >= 0) & (request.images <= 1)).all()
    assert encode_response(INFO, request, np.zeros((len(request.images), 5), np.float32))


def paths(document: Any, before: tuple[Any, ...] = ()) -> set[tuple[Any, ...]]:
    """Return the paths of all values in a JSON document."""
    result: set[tuple[Any, ...]] = set()
    entries = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in entries:
        result |= {(*before, name)} | paths(value, (*before, name))
    return result
