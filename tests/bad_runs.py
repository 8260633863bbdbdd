"""Damage to a file of a run folder, each with a command that reads the file and a part of the line that refuses it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from wootz.store import canonical, sha256

Damage = Callable[[Path], object]


class BadRun(NamedTuple):
    """A file of the run, what is done to it, commands of which each must refuse the run, and a part of the message."""

    file: str
    damage: Damage
    reason: str
    commands: tuple[str, ...]


def text(content: str | bytes) -> Damage:
    """Return a damage that replaces a file."""
    return lambda path: path.write_bytes(content if isinstance(content, bytes) else content.encode())


def fields(**changes: Any) -> Damage:
    """Return a damage that changes fields of a JSON object; None as the type removes one."""

    def change(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def marker(**changes: Any) -> Damage:
    """Return a damage that changes fields of a checkpoint's marker, and its digest with them."""

    def change(path: Path) -> None:
        plain = {name: value for name, value in json.loads(path.read_text()).items() if name != "marker"} | changes
        path.write_text(json.dumps(plain | {"marker": sha256(canonical(plain))}))

    return change


def setting(line: str) -> Damage:
    """Return a damage that puts a line before all others of a TOML file, instead of the line of the same key."""

    def change(path: Path) -> None:
        key = line.split(" =")[0]
        kept = [old for old in path.read_text().splitlines() if not old.startswith(f"{key} =")]
        path.write_text("\n".join([line, *kept]))

    return change


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


ANY: dict[str, tuple[Damage, str]] = {
    "half": (half, ""),
    "deep list": (text("[" * 200_000), "nested too deeply"),
    "deep object": (text('{"a":' * 200_000), "nested too deeply"),
    "fifty lists": (text("[" * 50 + "]" * 50), ""),
    "list": (text("[]"), ""),
    "null": (text("null"), ""),
    "number": (text("7"), ""),
    "empty object": (text("{}"), ""),
    "empty": (text(""), ""),
    "bytes": (text(b"\xff\xfe\x00" * 100), ""),
}
"""Damage to any file of JSON."""

OWN, VERIFY, REPORT, REGISTER, RESUME = "evaluate", "verify", "report", "register", "protect"

READERS = {
    "model.json": (OWN, VERIFY),
    "record.json": (REPORT, REGISTER),
    "checkpoint/checkpoint.json": (RESUME,),
    "key/key.json": (VERIFY,),
    "registration.json": (VERIFY,),
    "curve.json": (REPORT,),
}

HUGE = 10**9
ONE: dict[str, list[tuple[str, Damage, str]]] = {
    "model.json": [
        ("settings are a list", fields(settings=[]), "settings"),
        ("settings are nested", fields(settings={"width": {"a": 1}}), "settings"),
        ("architecture is a list", fields(architecture=["x"]), "architecture"),
        ("shape is negative", fields(input={"shape": [1, -28, 28]}), "input.shape.1"),
        ("shape is huge", fields(input={"shape": [1, 2**40, 28]}), "input.shape.1"),
        ("image is huge", fields(input={"shape": [1, 2**16, 2**16]}), "at most 67,108,864 values"),
        ("shape is missing", fields(input=3), "model.json: input"),
        ("eps is a text", fields(eps="abc"), "eps"),
        ("eps is null", fields(eps=None), "eps"),
        ("eps is NaN", fields(eps=float("nan")), "eps"),
        ("data is a number", fields(data=5), "data"),
        ("set_aside is a text", fields(set_aside="x"), "set_aside"),
        ("seed is a fraction", fields(seed=1.5), "seed"),
        ("kind is unknown", fields(kind="x"), "kind"),
        ("filters are a number", fields(filters=5), "filters"),
        ("classes are a number", fields(classes=7), "model.json: classes"),
        ("classes are equal", fields(classes=["a"] * 10), "names of classes must differ"),
        ("classes are numbers", fields(classes=list(range(10))), "classes.0"),
        ("another schema", fields(schema=2), "this version reads schema 1"),
    ],
    "record.json": [
        ("an unknown field", fields(zzz=1), "zzz"),
        ("clean is a text", fields(clean="x"), "clean"),
        ("clean is NaN", fields(clean=float("nan")), "clean"),
        ("seconds are infinite", fields(seconds=float("inf")), "seconds"),
        ("robust is a number", fields(robust=5), "robust"),
        ("evidence is an object", fields(evidence={}), "evidence"),
        ("another schema", fields(schema=[1]), "this version reads schema 1"),
    ],
    "checkpoint/checkpoint.json": [
        ("a changed field", fields(epoch=0), "is damaged"),
        ("no groups", marker(groups=[]), "does not fit the network and its optimizer"),
        ("groups of others", marker(groups=[{"params": [0]}]), "does not fit the network and its optimizer"),
        ("history without figures", marker(history=[{}]), "loss and accuracies of the epochs 0 to"),
        ("epoch is a text", marker(epoch="1"), "epoch"),
        ("epoch is huge", marker(epoch=HUGE), "loss and accuracies of the epochs 0 to"),
        ("a file elsewhere", marker(file="../../key/key.json"), "file"),
        ("another digest", marker(digest="sha256:00"), "its digest differs"),
        ("another run", marker(run={"targets": "00"}), "other settings or seed"),
    ],
    "curve.json": [("texts", fields(eps=["a"]), "eps")],
    "config.toml": [
        ("half a line", text("data = "), "config.toml"),
        ("deep lists", text("a = " + "[" * 100_000), "nested too deeply"),
        ("bytes", text(b"\xff\xfe"), "config.toml"),
        ("2 MB", text("#" * (2 << 20)), "has more than 1,048,576 bytes"),
        ("a list where a table belongs", text("recipe = []"), "must be a table"),
        ("a number as data", setting("data = 5"), "must be of type str"),
        ("a text as seed", setting('seed = "x"'), "must be a whole number"),
        ("infinity as seed", setting("seed = inf"), "must be a whole number"),
        ("a list as model", setting("model = []"), "must be of type str"),
        ("an unknown setting", setting("zzz = 1"), "no such setting"),
        ("NaN", setting("wm_eps = nan"), "wm_eps"),
    ],
    "metrics.jsonl": [
        ("half a line", text('{"epoch": 0\n'), "metrics.jsonl, line 1"),
        ("wrong types", text('{"epoch": "a", "loss": "NaN<script>"}\n[]\n'), "metrics.jsonl, line 1"),
        ("deep", text("[" * 200_000 + "\n"), "nested too deeply"),
    ],
    "model.safetensors": [
        ("half", half, "is not a complete safetensors file"),
        ("empty", text(b""), "is not a complete safetensors file"),
        ("a huge header", text((2**62).to_bytes(8, "little") + bytes(100)), "is not a complete safetensors file"),
        ("pipe", pipe, "is not a plain file"),
    ],
}

BUILT: list[tuple[str, Damage, str]] = [
    ("settings are huge", fields(settings={"width": HUGE, "hidden": HUGE}), "small-cnn: its settings give"),
    ("settings are too large", fields(settings={"width": 256, "hidden": 3000}), "weights where there are"),
    ("settings are unknown", fields(settings={"depth": 3}), "no such setting"),
    ("architecture is unknown", fields(architecture="x"), "unknown model 'x'"),
    ("pipe", pipe, "is not a plain file"),
]
"""Damage to `model.json` that only commands meet that build the network."""

BAD_RUNS: dict[str, BadRun] = (
    {
        f"{file}: {name}": BadRun(file, damage, reason, commands)
        for file, commands in READERS.items()
        for name, (damage, reason) in ANY.items()
    }
    | {
        f"{file}: {name}": BadRun(file, damage, reason, commands)
        for file, commands in (
            READERS | {"config.toml": (RESUME, VERIFY), "metrics.jsonl": (REPORT,), "model.safetensors": (OWN,)}
        ).items()
        for name, damage, reason in ONE.get(file, [])
    }
    | {f"model.json: {name}": BadRun("model.json", damage, reason, (OWN,)) for name, damage, reason in BUILT}
)
