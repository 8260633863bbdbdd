"""PyTorch zip files: invalid archives, and pickles that call something."""

from __future__ import annotations

import io
import struct
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from hostile import Bomb, pickled, refused, state_pickle, state_zip, tensor_op, text_op, zip_file
from torch import nn

from wootz.suspects.files import Limits, open_file
from wootz.suspects.files.torch_zip import torch_zip_header, torch_zip_tensors

ONE = state_pickle(("w", tensor_op()))
BYTES = ("a/data/0", bytes(16))


def _patched(data: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Return a zip file with bytes changed in each record that starts with `mark`."""
    changed, place = bytearray(data), data.find(mark)
    while place >= 0:
        changed[place + offset : place + offset + len(value)] = value
        place = data.find(mark, place + 1)
    return bytes(changed)


def _zip64(count: int) -> bytes:
    """Return a zip file whose zip64 record announces so many members."""
    data = state_zip(ONE, BYTES)
    start = len(data) - 22
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, 46 * count, 0)
    return data[:start] + record + struct.pack("<4sIQI", b"PK\6\7", 0, start, 1) + data[start:]


def _saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


SAFE = state_zip(ONE, BYTES)
ARCHIVES = {
    "packed": (zip_file([("a/data.pkl", ONE), BYTES], packed=True), "is compressed"),
    "a bomb of zeros": (zip_file([("a/data.pkl", ONE), ("a/data/0", bytes(1 << 24))], packed=True), "is compressed"),
    "upwards": (state_zip(ONE, BYTES, ("a/../../canary", b"x")), "leads out of the archive"),
    "absolute": (state_zip(ONE, BYTES, ("/etc/canary", b"x")), "leads out of the archive"),
    "a drive": (state_zip(ONE, BYTES, ("C:/canary", b"x")), "leads out of the archive"),
    "backslashes": (state_zip(ONE, BYTES, ("a\\..\\canary", b"x")), "leads out of the archive"),
    "a folder": (state_zip(ONE, BYTES, ("a/data/", b"")), "leads out of the archive"),
    "control characters": (state_zip(ONE, BYTES, ("a/\x1b[2J", b"")), "unprintable name"),
    "the same but for case": (state_zip(ONE, BYTES, ("a/DATA.pkl", ONE)), "the same name"),
    "encrypted": (_patched(SAFE, b"PK\1\2", 8, b"\1\0"), "encrypted"),
    "larger than the file": (_patched(SAFE, b"PK\1\2", 20, struct.pack("<II", 1 << 30, 1 << 30)), "more bytes than"),
    "two sizes": (_patched(SAFE, b"PK\1\2", 24, struct.pack("<I", 1 << 30)), "is compressed"),
    "another name inside": (_patched(SAFE, b"PK\3\4", 30, b"b"), "is damaged"),
    "another checksum": (_patched(SAFE, b"PK\1\2", 16, b"\0\0\0\0"), "is damaged"),
    "more members announced": (_patched(SAFE, b"PK\5\6", 8, struct.pack("<HH", 9, 9)), "announces 9 members"),
    "2^40 members": (_zip64(1 << 40), "1,099,511,627,776 members"),
    "5,000 members": (state_zip(ONE, *((f"a/data/{n}", b"") for n in range(5000))), "members; 4,096 are read"),
    "a comment": (SAFE[:-2] + b"\3\0abc", "damaged zip"),
    "a directory from elsewhere": (_patched(SAFE, b"PK\5\6", 16, struct.pack("<I", 1 << 20)), "damaged"),
    "two roots": (zip_file([("a/data.pkl", ONE), ("b/data.pkl", ONE), BYTES]), "not that of a state dict"),
    "big endian": (zip_file([("a/data.pkl", ONE), ("a/byteorder", b"big"), BYTES]), "little endian"),
    "a huge pickle": (state_zip(bytes(1 << 24) + b".", BYTES), "too large for a state dict"),
    "no bytes": (state_zip(ONE), "no bytes in the archive; its storage needs 16"),
    "too few bytes": (state_zip(ONE, ("a/data/0", bytes(12))), "12 bytes in the archive"),
    "too many bytes": (state_zip(ONE, ("a/data/0", bytes(20))), "20 bytes in the archive"),
}
PICKLES = {
    "a bomb": (pickled(Bomb()), "names 'posix system'"),
    "a bomb beside tensors": (state_pickle(("w", tensor_op()), ("x", pickled(Bomb())[2:-1])), "names 'posix system'"),
    "eval": (b"\x80\x02cbuiltins\neval\n(X\x01\0\0\x001tR.", "names 'builtins eval'"),
    "a bomb of protocol 4": (pickled(Bomb(), 4), "not protocol 2"),
    "a bomb by stack": (b"\x80\x02" + text_op("posix") + text_op("system") + b"\x93X\1\0\0\0a\x85R.", "opcode 0x93"),
    "a bomb by instance": (b"\x80\x02(S'touch canary'\nios\nsystem\n.", "opcode 0x53"),
    "a registered extension": (b"\x80\x02\x82\x01.", "opcode 0x82"),
    "a module": (pickled(OrderedDict(a=nn.ReLU)), "names 'torch.nn"),
    "a call of what is no function": (b"\x80\x02}(tR.", "calls something"),
    "arguments for a dict": (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "calls something"),
    "state of a function": (b"\x80\x02ccollections\nOrderedDict\n}b.", "sets the state"),
    "a list": (pickled([1.0]), "opcode"),
    "a number": (b"\x80\x02K\x01.", "not a flat dict"),
    "a nested dict": (state_pickle(("a", b"}")), "not a flat dict"),
    "a tuple as key": (b"\x80\x02}(K\x01K\x02\x86K\x03u.", "not a flat dict"),
    "a dict within itself": (b"\x80\x02}q\0X\1\0\0\0ah\0s.", "not a flat dict"),
    "a name twice": (state_pickle(("w", tensor_op()), ("w", tensor_op())), "is repeated"),
    "nothing": (b"", "ends too early"),
    "no end": (ONE[:-1], "ends too early"),
    "no mark": (b"\x80\x02}u.", "a mark is missing"),
    "an empty stack": (b"\x80\x02R.", "damaged"),
    "an unknown memory": (b"\x80\x02h\7.", "damaged"),
    "text beyond the end": (b"\x80\x02X\xff\xff\xff\x7fabc.", "ends too early"),
    "100,000 nested tuples": (b"\x80\x02)" + b"\x85" * 100_000 + b".", "not a flat dict"),
    "beyond its storage": (state_pickle(("w", tensor_op(offset=1))), "beyond its storage"),
    "far before its storage": (state_pickle(("w", tensor_op(offset=-1))), "invalid size"),
    "a size below zero": (state_pickle(("w", tensor_op(shape=(-4,)))), "invalid size"),
    "one value, spread": (state_pickle(("w", tensor_op(shape=(60_000, 10**6), strides=(0, 0)))), "row by row"),
    "columns": (state_pickle(("w", tensor_op(shape=(2, 2), strides=(1, 2)))), "row by row"),
    "too few strides": (state_pickle(("w", tensor_op(shape=(2, 2)))), "more sizes than strides"),
    "226 GB": (state_pickle(("w", tensor_op(elements=6 * 10**10, shape=(6 * 10**10,)))), "60,000,000,000 elements"),
    "rank 9": (state_pickle(("w", tensor_op(elements=1, shape=(1,) * 9, strides=(1,) * 9))), "9 dimensions"),
    "no elements": (state_pickle(("w", tensor_op(elements=4, shape=(0,)))), "no elements"),
    "quantized numbers": (
        state_pickle(("w", tensor_op(storage="torch\nQInt8Storage"))),
        "names 'torch QInt8Storage'",
    ),
    "quantized": (
        state_pickle(("w", tensor_op(function="torch._utils\n_rebuild_qtensor"))),
        "names 'torch._utils _rebuild_qtensor'",
    ),
    "a storage of another kind": (b"\x80\x02(" + text_op("module") + b"K\1K\1K\1K\1tQ.", "storage in it"),
    "a storage that is none": (b"\x80\x02K\1Q.", "damaged"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_lies(run: Path, name: str) -> None:
    data, match = ARCHIVES[name]
    (run / "model.safetensors").write_bytes(data)
    text = refused(run, match)
    assert "Traceback" not in text
    with pytest.raises(Exception, match=match):  # without the wrong weights being what is noticed
        torch_zip_header(data, "x", Limits())


@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_is_no_state_dict(run: Path, name: str) -> None:
    data, match = PICKLES[name]
    (run / "model.safetensors").write_bytes(state_zip(data, BYTES))
    refused(run, match)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("value", "match"),
    [
        ({"w": torch.eye(3).to_sparse()}, "names 'torch._utils _rebuild_sparse_tensor'"),
        ({"w": torch.ones(2), "epoch": 3}, "not a flat dict"),
        ({"state_dict": {"w": torch.ones(2)}}, "not a flat dict"),
        ({"w": nn.Parameter(torch.ones(2))}, "_rebuild_parameter"),
        ({"w": torch.ones(2, 3).T}, "row by row"),
        (nn.Linear(2, 2), "names"),
        (torch.ones(2), "not a flat dict"),
    ],
)
def test_what_pytorch_saves_beside_state_dicts(run: Path, value: object, match: str) -> None:
    (run / "model.safetensors").write_bytes(_saved(value))
    refused(run, match)


def test_the_members_named_twice(run: Path) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", ONE)
        archive.writestr(*BYTES)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(*BYTES)
    (run / "model.safetensors").write_bytes(file.getvalue())
    refused(run, "the same name")


def test_a_flawless_state_dict_is_read_as_pytorch_reads_it() -> None:
    base = torch.randn(4, 6)
    state = {
        "float": torch.randn(2, 3, 4),
        "double": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3).bfloat16(),
        "long": torch.tensor(7),
        "byte": torch.tensor([1, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False]),
        "whole": base,
        "part": base[1:3],
        "one": torch.ones(1, 1, 5),
        **{f"more{n}": torch.full((2,), n) for n in range(300)},
    }
    data = _saved(state)
    found = torch_zip_header(data, "x", Limits())
    tensors = torch_zip_tensors(data, "x", found, Limits())
    assert list(tensors) == list(state)
    assert all(torch.equal(tensors[name], state[name]) for name in state)
    assert all(tensors[name].dtype == state[name].dtype for name in state)


def test_where_the_tensors_were_does_not_matter(run: Path, x: torch.Tensor, net: nn.Module) -> None:
    data = (run / "model.pt").read_bytes()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    moved = [(name, part.replace(b"\3\0\0\0cpu", b"\6\0\0\0cuda:0")) for name, part in members]
    assert moved != members
    (run / "model.pt").write_bytes(zip_file(moved))
    with open_file(run / "model.pt", isolated=False, allow_torch_zip=True) as opened:
        assert torch.allclose(opened.predict(x), net(x))
