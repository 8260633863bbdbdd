"""Answers are parsed or rejected; the binary extension is compared with the reference client of Triton."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput  # type: ignore[import-untyped]

from suspects.endpoints.fault_server import LENGTH
from wootz.errors import ConfigError, ModelError
from wootz.suspects.endpoints import Client, EndpointInfo, open_inference
from wootz.suspects.endpoints.context import EndpointContext
from wootz.suspects.endpoints.parsing import UnusableAnswerError, parse_answer
from wootz.suspects.endpoints.transport import Response
from wootz.types import AnswerAccess

INFO = EndpointInfo(model="m", classes=("cat", "dog", "eel"), num_classes=3)


@pytest.mark.parametrize(
    ("item", "label", "row"),
    [
        ([0.1, 0.7, 0.2], 1, [0.1, 0.7, 0.2]),
        ("dog", 1, None),
        ("LABEL_2", 2, None),
        (2, 2, None),
        ([{"label": "eel", "score": 0.9}, {"label": "cat", "score": 0.1}], 2, [0.1, 0.0, 0.9]),
        ([{"label": "LABEL_1", "score": 1}], 1, [0.0, 1.0, 0.0]),
        (2.0, 2, None),
        ("2", 2, None),
        ({"label": "eel"}, 2, None),
        ({"anything": [0.1, 0.7, 0.2]}, 1, [0.1, 0.7, 0.2]),
        ({"probabilities": [0.1, 0.7, 0.2], "classes": 1}, 1, [0.1, 0.7, 0.2]),
        ({"classes": ["1"], "class_ids": [1], "logits": [1, 9, 2], "all_class_ids": [0, 1, 2]}, 1, [1, 9, 2]),
        ({"scores": [0.2, 0.7, 0.1], "classes": ["eel", "cat", "dog"]}, 0, [0.7, 0.1, 0.2]),
    ],
)
def test_answers_of_every_format(item: Any, label: int, row: list[float] | None) -> None:
    assert parse_answer(item, "label", INFO) == label
    if row is None:
        with pytest.raises(UnusableAnswerError):
            parse_answer(item, "scores", INFO)
    else:
        assert parse_answer(item, "scores", INFO).tolist() == pytest.approx(row)


@pytest.mark.parametrize(
    "item",
    [
        None,
        True,
        "cow",
        "LABEL_3",
        3,
        -1,
        1.5,
        math.inf,
        10**400,
        [],
        [1.0],
        [1, 2],
        [1, 2, 3, 4],
        ["1", "2", "3"],
        [True, False, True],
        [1e300, 0, 0],
        [10**400, 0, 0],
        [None, 0, 0],
        [[1, 2, 3]],
        {"label": "cow"},
        {"some": [0.1, 0.7, 0.2], "others": [0.1, 0.7, 0.2]},
        {"probabilities": {"probabilities": [0.1, 0.7, 0.2]}},
        {},
        [{"label": "cat"}],
        [{"score": 1.0}],
        [{"label": ["cat"], "score": 1.0}],
        [{"label": "cow", "score": 1.0}],
    ],
)
@pytest.mark.parametrize("access", ["label", "scores"])
def test_unusable_answers(item: Any, access: AnswerAccess) -> None:
    with pytest.raises(UnusableAnswerError):
        parse_answer(item, access, INFO)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["label", "scores"]))
def test_any_json_is_parsed_or_unusable(item: Any, access: AnswerAccess) -> None:
    try:
        row = parse_answer(item, access, INFO)
    except UnusableAnswerError:
        return
    assert row.shape == (() if access == "label" else (3,))


@given(st.dictionaries(st.sampled_from(["name", "inputs", "outputs", "parameters"]), json_values))
def test_any_metadata_are_read_or_rejected(metadata: dict[str, Any]) -> None:
    try:
        info = open_inference.read_info("http://h/v2/models/m", {"name": "m"} | metadata, Client())
    except (ConfigError, ModelError):
        return
    assert info.model == "m"


@given(
    st.dictionaries(st.sampled_from(["name", "shape", "datatype", "data", "parameters"]), json_values),
    st.binary(max_size=40),
    st.sampled_from([None, "0", "-1", "5", "x", "99999999999999"]),
)
def test_any_response_is_decoded_or_unusable(output: dict[str, Any], tail: bytes, length: str | None) -> None:
    payload = {"model_name": "m", "outputs": [{"shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]} | output]}
    body = json.dumps(payload).encode()
    headers = {} if length is None else {LENGTH.lower(): str(len(body)) if length == "x" else length}
    response = Response(True, 200, headers, body + (tail if headers else b""))
    try:
        items = open_inference.decode_response(EndpointContext("u", Client(), INFO), response, 1, "id")
    except UnusableAnswerError:
        return
    assert len(items) == 1


pixels = arrays.arrays(np.float32, st.tuples(*(st.integers(1, 3),) * 4), elements=st.floats(0, 1, width=32))


@given(pixels, st.booleans(), st.sampled_from(["FP32", "FP64"]))
def test_requests_are_those_of_the_reference_client(image: np.ndarray[Any, Any], binary: bool, datatype: str) -> None:
    info = EndpointInfo(model="m", input="x", datatype=datatype, output="y")
    ours = open_inference.encode_request(
        EndpointContext("http://h/v2/models/m", Client(), info), torch.from_numpy(image), "7", binary
    )
    tensor = InferInput("x", list(image.shape), datatype)
    tensor.set_data_from_numpy(image.astype(np.float32 if datatype == "FP32" else np.float64), binary_data=binary)
    output = InferRequestedOutput("y", binary_data=binary)
    body, length = InferenceServerClient.generate_request_body([tensor], [output], request_id="7")
    size = int(ours.headers.get(LENGTH, len(ours.body)))
    theirs = json.loads(body[:length])
    if not binary:  # the reference client sends `false` for a default that we omit
        theirs["outputs"][0].pop("parameters")
    assert json.loads(ours.body[:size]) == theirs
    assert ours.body[size:] == (body[length:] if binary else b"")


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(2, 5)), elements=st.floats(width=32)),
    st.sampled_from(["FP32", "FP64"]),
    st.sampled_from(["sole", "second"]),
)
def test_responses_are_decoded_as_by_the_reference_client(
    values: np.ndarray[Any, Any], datatype: str, place: str
) -> None:
    data = values.astype(open_inference.DTYPES[datatype])
    tensors = [("y", data)] if place == "sole" else [("other", np.arange(3, dtype=np.int64)), ("y", data)]
    datatypes = {"float32": "FP32", "float64": "FP64", "int64": "INT64"}
    outputs = [
        {
            "name": name,
            "shape": list(part.shape),
            "datatype": datatypes[part.dtype.name],
            "parameters": {"binary_data_size": part.nbytes},
        }
        for name, part in tensors
    ]
    header = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    body = header + b"".join(part.tobytes() for _, part in tensors)
    theirs = InferenceServerClient.parse_response_body(body, header_length=len(header)).as_numpy("y")
    info = EndpointInfo(model="m", output="y")
    response = Response(True, 200, {LENGTH.lower(): str(len(header))}, body)
    ours = open_inference.decode_response(EndpointContext("u", Client(), info), response, len(values), "7")
    assert np.array_equal(np.stack(ours), theirs, equal_nan=True)
    for bad in (body[:-1], body + b"\0"):
        with pytest.raises(UnusableAnswerError):
            open_inference.decode_response(
                EndpointContext("u", Client(), info), response._replace(body=bad), len(values), "7"
            )
