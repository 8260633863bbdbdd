"""What strangers answer is read or refused, as a foreign implementation of the binary extension reads it."""

from __future__ import annotations

import json
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
from wootz.suspects.endpoints import Client, EndpointInfo, protocol
from wootz.suspects.endpoints.answers import UnusableError, read_row
from wootz.suspects.endpoints.service import Service
from wootz.suspects.endpoints.wire import Reply
from wootz.types import Access

FACTS = EndpointInfo(model="m", classes=("cat", "dog", "eel"), num_classes=3)


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
        None,
        True,
        "cow",
        "LABEL_3",
        3,
        -1,
        1.0,
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
        {"label": "cat"},
        [{"label": "cat"}],
        [{"score": 1.0}],
        [{"label": ["cat"], "score": 1.0}],
        [{"label": "cow", "score": 1.0}],
    ],
)
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
        info = protocol.info("http://h/v2/models/m", {"name": "m"} | told, Client())
    except (ConfigError, ModelError):
        return
    assert info.model == "m"


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


pixels = arrays.arrays(np.float32, st.tuples(*(st.integers(1, 3),) * 4), elements=st.floats(0, 1, width=32))


@given(pixels, st.booleans(), st.sampled_from(["FP32", "FP64"]))
def test_questions_are_those_of_a_foreign_client(image: np.ndarray[Any, Any], binary: bool, datatype: str) -> None:
    info = EndpointInfo(model="m", input="x", datatype=datatype, output="y")
    ours = protocol.encode(Service("http://h/v2/models/m", Client(), info), torch.from_numpy(image), "7", binary)
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
            "name": name,
            "shape": list(part.shape),
            "datatype": names[part.dtype.name],
            "parameters": {"binary_data_size": part.nbytes},
        }
        for name, part in slots
    ]
    told = json.dumps({"model_name": "m", "outputs": outputs}).encode()
    body = told + b"".join(part.tobytes() for _, part in slots)
    theirs = InferenceServerClient.parse_response_body(body, header_length=len(told)).as_numpy("y")
    info = EndpointInfo(model="m", output="y")
    reply = Reply(True, 200, {LENGTH.lower(): str(len(told))}, body)
    ours = protocol.decode(Service("u", Client(), info), reply, len(values), "7")
    assert np.array_equal(np.stack(ours), theirs, equal_nan=True)
    for bad in (body[:-1], body + b"\0"):
        with pytest.raises(UnusableError):
            protocol.decode(Service("u", Client(), info), reply._replace(body=bad), len(values), "7")
