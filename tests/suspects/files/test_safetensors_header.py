"""Invalid safetensors headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hostile import entry, refused, tensors_file
from safetensors.torch import load, save

from wootz.suspects.files import Limits
from wootz.suspects.files.limits import TensorSpec
from wootz.suspects.files.safetensors_file import safetensors_header

TWICE = f'{{"a": {json.dumps(entry([1], 0, 4))}, "a": {json.dumps(entry([1], 4, 8))}}}'
LIES = {
    "four bytes": (b"\x10\0\0\0", "neither"),
    "cut off": (tensors_file({"a": entry([4], 0, 16)}, bytes(16), length=9999), "truncated"),
    "no JSON": (tensors_file(b"{nonsense"), "not strict JSON"),
    "no UTF-8": (tensors_file(b'{"\xff\xfe": 1}'), "not strict JSON"),
    "the same name twice": (tensors_file(TWICE.encode(), bytes(8)), "is repeated"),
    "the same key twice": (tensors_file(b'{"a": {"dtype": "F32", "dtype": "F64"}}'), "is repeated"),
    "deep": (tensors_file(b'{"a":' * 100_000), "nested too deeply|not strict JSON"),
    "NaN": (tensors_file(b'{"a": NaN}'), "NaN is not a number"),
    "infinity": (tensors_file(b'{"a": 1e999}'), "too large"),
    "a number without end": (tensors_file(b'{"a": ' + b"9" * 10_000 + b"}"), "not strict JSON"),
    "empty": (tensors_file({}), "holds no tensors"),
    "metadata only": (tensors_file({"__metadata__": {"a": "b"}}), "holds no tensors"),
    "226 GB": (tensors_file({"a": entry([60_000_000_000], 0, 240_000_000_000)}), "60,000,000,000 elements"),
    "226 GB as a plane": (tensors_file({"a": entry([250_000, 240_000], 0, 4)}), "60,000,000,000 elements"),
    "many billions of small ones": (
        tensors_file({f"t{n}": entry([1 << 20], 4 * n << 20, 4 * (n + 1) << 20) for n in range(2049)}),
        "read at most",
    ),
    "rank 9": (tensors_file({"a": entry([1] * 9, 0, 4)}, bytes(4)), "9 dimensions"),
    "rank 100,000": (tensors_file({"a": entry([1] * 100_000, 0, 4)}, bytes(4)), "100,000 dimensions"),
    "overflow": (tensors_file({"a": entry([1 << 62, 4], 0, 0)}), r"10\^15"),
    "below zero": (tensors_file({"a": entry([-1, -4], 0, 16)}, bytes(16)), "invalid dimension"),
    "a dimension of 2^70": (tensors_file({"a": entry([1 << 70], 0, 4)}, bytes(4)), "invalid dimension"),
    "a broken dimension": (tensors_file({"a": entry([1.5], 0, 6)}, bytes(6)), "invalid dimension"),
    "true as a dimension": (tensors_file({"a": entry([True], 0, 4)}, bytes(4)), "invalid dimension"),
    "text as a dimension": (tensors_file({"a": entry(["4"], 0, 16)}, bytes(16)), "invalid dimension"),
    "unknown dtype": (tensors_file({"a": entry([4], 0, 4, "F4")}, bytes(4)), "has dtype 'F4'"),
    "no dtype": (tensors_file({"a": entry([4], 0, 4, 7)}, bytes(4)), "wrong types"),  # type: ignore[arg-type]
    "shape is text": (tensors_file({"a": entry([4], 0, 16) | {"shape": "4"}}, bytes(16)), "wrong types"),
    "overlap": (tensors_file({"a": entry([4], 0, 16), "b": entry([4], 8, 24)}, bytes(24)), "not at 16"),
    "the same bytes": (tensors_file({"a": entry([4], 0, 16), "b": entry([4], 0, 16)}, bytes(16)), "not at 16"),
    "gap": (tensors_file({"a": entry([4], 0, 16), "b": entry([4], 20, 36)}, bytes(36)), "not at 16"),
    "late start": (tensors_file({"a": entry([4], 4, 20)}, bytes(20)), "not at 0"),
    "bytes after": (tensors_file({"a": entry([4], 0, 16)}, bytes(20)), "take 16 bytes; the file has 20"),
    "bytes missing": (tensors_file({"a": entry([4], 0, 16)}, bytes(12)), "take 16 bytes; the file has 12"),
    "span": (tensors_file({"a": entry([4], 0, 12)}, bytes(12)), "shape and dtype need 16"),
    "backwards": (tensors_file({"a": entry([4], 16, 0)}, bytes(16)), "starts at byte 16"),
    "offset below zero": (tensors_file({"a": entry([4], -16, 0)}, bytes(16)), "data offsets"),
    "offset beyond 63 bits": (tensors_file({"a": entry([4], 0, 1 << 63)}, bytes(16)), "data offsets"),
    "three offsets": (tensors_file({"a": entry([4], 0, 16) | {"data_offsets": [0, 8, 16]}}, bytes(16)), "data offsets"),
    "no elements": (tensors_file({"a": entry([0, 1 << 40], 0, 0), "b": entry([4], 0, 16)}, bytes(16)), "no elements"),
    "no offsets": (tensors_file({"a": {"dtype": "F32", "shape": [1]}}, bytes(4)), "exactly the fields"),
    "more keys": (tensors_file({"a": entry([1], 0, 4) | {"file": "/etc/passwd"}}, bytes(4)), "exactly the fields"),
    "an entry that is none": (tensors_file({"a": [1, 2]}), "exactly the fields"),
    "4,097 tensors": (
        tensors_file({f"t{n}": entry([1], n, n + 1, "U8") for n in range(4097)}, bytes(4097)),
        "4,097 tensors",
    ),
    "a name of control characters": (tensors_file({"\x1b[2J\n" * 40: entry([9], 0, 4)}, bytes(4)), "need 36"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies(run: Path, name: str) -> None:
    data, match = LIES[name]
    (run / "model.safetensors").write_bytes(data)
    refused(run, match)


def test_a_header_beyond_the_cap(run: Path) -> None:
    refused(run, "header of .* bytes; 64 are read at most", limits=Limits(header_bytes=64))


def test_what_the_format_allows_is_read() -> None:
    tensors = {"a": torch.ones(2, 3), "b": torch.tensor(4), "c": torch.ones(5, dtype=torch.bfloat16)}
    data = save(tensors, {"made by": "us"})
    found = safetensors_header(data, "x", Limits())
    assert found == {"a": TensorSpec("F32", (2, 3)), "b": TensorSpec("I64", ()), "c": TensorSpec("BF16", (5,))}
    assert {key: tuple(one.shape) for key, one in load(data).items()} == {key: one.shape for key, one in found.items()}
