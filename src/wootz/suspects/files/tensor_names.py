"""Names of tensors in state dicts, without what wrappers such as `DataParallel` and `torch.compile` add to them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

_WRAPPERS = frozenset({"module", "_orig_mod"})
"""Attributes in which `DataParallel`, `DistributedDataParallel` and `torch.compile` hold the network that they wrap."""


def plain_name(name: str) -> str:
    """Return the name of a tensor without the wrappers around the network and its parts."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def matched_names(present: Sequence[str], expected: Collection[str]) -> dict[str, str]:
    """Return the expected name of each tensor: its own, or the one without wrappers and a prefix that all names share.

    Names that do not become the expected ones, each once, are returned as they are.
    """
    for names in _without_wrappers(present):
        if len(names) == len(expected) and set(names) == set(expected):
            return dict(zip(present, names, strict=True))
    return {name: name for name in present}


def _without_wrappers(present: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names as they are, then without each dotted prefix that all share, then both without wrappers."""
    for names in (list(present), [plain_name(name) for name in present]):
        for end in [0, *(at + 1 for at, letter in enumerate(next(iter(names), "")) if letter == ".")]:
            if all(name.startswith(names[0][:end]) for name in names):
                yield [name[end:] for name in names]
