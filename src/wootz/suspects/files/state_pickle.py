"""Parse the pickle in a PyTorch zip file as data: a flat dict of dense tensors, without calling anything.

Python's unpickler is not used. A small stack machine supports only the opcodes that `torch.save` writes for a state
dict; names of functions stay strings, and "calling" one of the three supported ones creates a plain record.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from wootz.errors import SuspectError
from wootz.suspects.files.limits import ITEM_BYTES, TensorSpec
from wootz.suspects.files.sanitize import one_line

_STORAGES: Mapping[str, str] = MappingProxyType(
    {
        "torch ComplexDoubleStorage": "C128",
        "torch ComplexFloatStorage": "C64",
        "torch DoubleStorage": "F64",
        "torch FloatStorage": "F32",
        "torch HalfStorage": "F16",
        "torch BFloat16Storage": "BF16",
        "torch LongStorage": "I64",
        "torch IntStorage": "I32",
        "torch ShortStorage": "I16",
        "torch CharStorage": "I8",
        "torch ByteStorage": "U8",
        "torch BoolStorage": "BOOL",
    }
)
_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        "torch float8_e4m3fn": "F8_E4M3",
        "torch float8_e4m3fnuz": "F8_E4M3FNUZ",
        "torch float8_e5m2": "F8_E5M2",
        "torch float8_e5m2fnuz": "F8_E5M2FNUZ",
        "torch uint16": "U16",
        "torch uint32": "U32",
        "torch uint64": "U64",
    }
)
"""Dtypes without a storage class of their own, which are stored as bytes."""
_BYTES = "torch.storage UntypedStorage"
_DICT = "collections OrderedDict"
_TENSOR, _TENSOR_OF_BYTES = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3"
_NAMES = frozenset({_BYTES, _DICT, _TENSOR, _TENSOR_OF_BYTES, *_STORAGES, *_DTYPES})


class Name(NamedTuple):
    """The name of a global in the pickle; it is never imported."""

    text: str


class Storage(NamedTuple):
    """A storage: its dtype, the name of its member of the archive, and its number of elements."""

    dtype: str
    key: str
    elements: int


class Stored(NamedTuple):
    """A dense tensor in row-major order, from element `offset` of a storage on."""

    storage: Storage
    offset: int
    spec: TensorSpec


class _Mark:
    """The start of a tuple or of the items of a dict on the stack."""


class _RefusedError(Exception):
    """The reason why this pickle is refused."""


def read_state(pickled: bytes, name: str) -> dict[str, Stored]:
    """Return the tensors that a pickled state dict describes; error messages start with `name`.

    Raises:
        SuspectError: It is not a flat dict of dense tensors as `torch.save(model.state_dict(), ...)` writes.
    """
    try:
        state = _run(pickled)
        if not isinstance(state, dict) or not all(isinstance(value, Stored) for value in state.values()):
            raise _RefusedError("it is not a flat dict of tensors")
    except _RefusedError as error:
        raise SuspectError(f"{name}: its pickle is not a plain state dict: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError, OverflowError) as error:
        raise SuspectError(f"{name}: its pickle is damaged ({one_line(type(error).__name__)})") from error
    return state


def _run(pickled: bytes) -> Any:
    file, stack, memo = io.BytesIO(pickled), list[Any](), dict[int, Any]()
    if _taken(file, 2) != b"\x80\x02":
        raise _RefusedError("it is not protocol 2")
    while (code := _taken(file, 1)) != _STOP:
        if code in _PUTS:
            memo[_PUTS[code](file)] = stack[-1]
        elif code in _GETS:
            stack.append(memo[_GETS[code](file)])
        elif code in _VALUES:
            stack.append(_VALUES[code](file))
        elif code in _ACTIONS:
            _ACTIONS[code](stack)
        else:
            raise _RefusedError(f"it uses the opcode 0x{code.hex()}")
    return stack.pop()


def _taken(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise _RefusedError("it ends too early")
    return data


def _number(count: int, *, signed: bool = False) -> Callable[[BinaryIO], int]:
    return lambda file: int.from_bytes(_taken(file, count), "little", signed=signed)


def _long(file: BinaryIO) -> int:
    return int.from_bytes(_taken(file, _taken(file, 1)[0]), "little", signed=True)


def _text(file: BinaryIO) -> str:
    return _taken(file, int.from_bytes(_taken(file, 4), "little")).decode()


def _global(file: BinaryIO) -> Name:
    named = f"{file.readline().decode().rstrip()} {file.readline().decode().rstrip()}"
    if named not in _NAMES:
        raise _RefusedError(f"it names {one_line(named, 80)!r}")
    return Name(named)


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise _RefusedError("it has an invalid size")
    return value


def _after_mark(stack: list[Any]) -> list[Any]:
    """Pop all items after the last mark, and the mark, and return the items."""
    position = len(stack) - 1
    while not isinstance(stack[position], _Mark):
        position -= 1
        if position < 0:
            raise _RefusedError("a mark is missing")
    items = stack[position + 1 :]
    del stack[position:]
    return items


def _tuple(stack: list[Any]) -> None:
    stack.append(tuple(_after_mark(stack)))


def _tuple_of(count: int) -> Callable[[list[Any]], None]:
    def make(stack: list[Any]) -> None:
        if len(stack) < count:
            raise _RefusedError("a value is missing")
        items = tuple(stack[-count:])
        del stack[-count:]
        stack.append(items)

    return make


def _set_items(stack: list[Any]) -> None:
    items = _after_mark(stack)
    if len(items) % 2:
        raise _RefusedError("a value is missing")
    _put(stack, items)


def _set_item(stack: list[Any]) -> None:
    value, key = stack.pop(), stack.pop()
    _put(stack, [key, value])


def _put(stack: list[Any], items: list[Any]) -> None:
    result = stack[-1]
    for key, value in zip(items[::2], items[1::2], strict=True):
        if not isinstance(result, dict) or not isinstance(key, str):
            raise _RefusedError("it is not a flat dict of tensors")
        if key in result:
            raise _RefusedError(f"the key {one_line(key, 80)!r} is repeated")
        result[key] = value


def _build(stack: list[Any]) -> None:
    """Drop the attributes of a state dict, which are PyTorch's module versions."""
    state, result = stack.pop(), stack[-1]
    if not isinstance(state, dict) or not isinstance(result, dict):
        raise _RefusedError("it sets the state of an object")


def _persistent(stack: list[Any]) -> None:
    tag, kind, key, _, elements = stack.pop()  # the fourth is the device; tensors are read to the CPU
    dtype = {_BYTES: "U8", **_STORAGES}.get(kind.text) if isinstance(kind, Name) else None
    if tag != "storage" or dtype is None or not isinstance(key, str):
        raise _RefusedError("a storage in it is described wrongly")
    stack.append(Storage(dtype, key, _whole(elements)))


def _reduce(stack: list[Any]) -> None:
    arguments, function = stack.pop(), stack.pop()
    if function == Name(_DICT) and arguments == ():
        stack.append({})
    elif function == Name(_TENSOR) and isinstance(arguments, tuple) and len(arguments) == 6:
        stack.append(_tensor(*arguments[:4]))
    elif function == Name(_TENSOR_OF_BYTES) and isinstance(arguments, tuple) and len(arguments) == 7:
        stack.append(_tensor(_typed(arguments[0], arguments[6]), *arguments[1:4]))
    else:
        raise _RefusedError("it calls something")


def _typed(storage: Any, dtype: Any) -> Storage:
    """Return a storage of bytes as one of a dtype of `_DTYPES`."""
    if not isinstance(storage, Storage) or not isinstance(dtype, Name) or dtype.text not in _DTYPES:
        raise _RefusedError("a tensor in it is described wrongly")
    name = _DTYPES[dtype.text]
    elements, rest = divmod(storage.elements * ITEM_BYTES[storage.dtype], ITEM_BYTES[name])
    if rest:
        raise _RefusedError("a storage in it has no whole number of elements")
    return Storage(name, storage.key, elements)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any) -> Stored:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise _RefusedError("a tensor in it is described wrongly")
    spec = TensorSpec(storage.dtype, tuple(_whole(size) for size in shape))
    expected = 1
    if len(strides) != len(shape):
        raise _RefusedError("a tensor has more sizes than strides")
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            raise _RefusedError("a tensor is not stored row by row")
        expected *= size
    if _whole(offset) + spec.elements > storage.elements:
        raise _RefusedError("a tensor goes beyond its storage")
    return Stored(storage, offset, spec)


_STOP = b"."
_PUTS: Mapping[bytes, Callable[[BinaryIO], int]] = MappingProxyType({b"q": _number(1), b"r": _number(4)})
_GETS: Mapping[bytes, Callable[[BinaryIO], int]] = MappingProxyType({b"h": _number(1), b"j": _number(4)})
_VALUES: Mapping[bytes, Callable[[BinaryIO], Any]] = MappingProxyType(
    {
        b"}": lambda _: {},
        b")": lambda _: (),
        b"(": lambda _: _Mark(),
        b"N": lambda _: None,
        b"\x88": lambda _: True,
        b"\x89": lambda _: False,
        b"c": _global,
        b"X": _text,
        b"J": _number(4, signed=True),
        b"K": _number(1),
        b"M": _number(2),
        b"\x8a": _long,
    }
)
_ACTIONS: Mapping[bytes, Callable[[list[Any]], None]] = MappingProxyType(
    {
        b"t": _tuple,
        b"\x85": _tuple_of(1),
        b"\x86": _tuple_of(2),
        b"\x87": _tuple_of(3),
        b"R": _reduce,
        b"u": _set_items,
        b"s": _set_item,
        b"b": _build,
        b"Q": _persistent,
    }
)
