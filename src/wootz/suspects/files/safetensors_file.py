"""The header of an untrusted safetensors file, read before anything that it describes.

The format: eight bytes (little endian) with the header's length, the header (JSON), then the tensors' bytes, one after
another. Checked here as strictly as the format is written, so that nothing hangs on one reader's leniency.
"""

from __future__ import annotations

from typing import Any

from wootz.errors import SuspectError
from wootz.suspects.files.budget import Described, Limits, check_budget
from wootz.suspects.files.words import one_line, strict_json


def safetensors_header(data: bytes, name: str, limits: Limits) -> dict[str, Described]:
    """Return dtype and shape of every tensor, by name; `name` is the file's, for errors.

    Raises:
        SuspectError: the header is not one; or the tensors overlap, leave gaps, do not end where the file ends, do not
            have the size of their shape, or are beyond the limits.
    """
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        raise SuspectError(f"{name}: is cut off: its header claims {length:,} bytes of a file of {len(data):,}")
    if length > limits.header_bytes:
        raise SuspectError(f"{name}: has a header of {length:,} bytes; {limits.header_bytes:,} are read at most")
    header = strict_json(data[8 : 8 + length], f"{name}: its header")
    if not isinstance(header, dict):
        raise SuspectError(f"{name}: its header is no JSON object")
    header.pop("__metadata__", None)
    if len(header) > limits.tensors:
        raise SuspectError(f"{name}: holds {len(header):,} tensors; {limits.tensors:,} are read at most")
    entries = {key: _entry(entry, f"{name}: tensor {one_line(key, 80)!r}") for key, entry in header.items()}
    described = {key: one for key, (one, _, _) in entries.items()}
    check_budget(described, limits, name)
    place = 0
    for key, (one, begin, end) in sorted(entries.items(), key=lambda item: item[1][1:]):
        what = f"{name}: tensor {one_line(key, 80)!r}"
        if not one.elements:
            raise SuspectError(f"{what} has no elements")
        if begin != place:
            raise SuspectError(f"{what} starts at byte {begin}, not at {place} where the one before it ends")
        if end - begin != one.size:
            raise SuspectError(f"{what} has {end - begin} bytes; its shape and dtype need {one.size}")
        place = end
    if place != len(data) - 8 - length:
        raise SuspectError(f"{name}: its tensors take {place} bytes; the file has {len(data) - 8 - length} for them")
    return described


def _entry(entry: Any, what: str) -> tuple[Described, int, int]:
    """Return a header entry as a description and the bytes from where to where."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise SuspectError(f"{what} is not described by dtype, shape and data_offsets alone")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or not isinstance(offsets, list):
        raise SuspectError(f"{what} is described by the wrong kinds of values")
    if len(offsets) != 2 or not all(type(place) is int and 0 <= place < 1 << 63 for place in offsets):
        raise SuspectError(f"{what} has no two data offsets")
    return Described(dtype, tuple(shape)), offsets[0], offsets[1]
