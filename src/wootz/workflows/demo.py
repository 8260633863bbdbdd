"""The whole story once: protect, evade, steal, remove, verify every suspect and every stranger, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wootz.attacks.evasion import predict_logits
from wootz.config import with_settings
from wootz.data import load
from wootz.errors import ConfigError
from wootz.keys import LabelKey, read_keys
from wootz.models import read_model
from wootz.records import Result, to_json, with_evidence
from wootz.store import lock_folder, read_json, write_json
from wootz.training import Execution
from wootz.types import Progress
from wootz.workflows.attack import attack_run
from wootz.workflows.owner import Owner
from wootz.workflows.protect import curve, protect_run
from wootz.workflows.protection import Protection, preset
from wootz.workflows.run import Timer
from wootz.workflows.suspects import QueryConfig
from wootz.workflows.verify import verify_cell

SHOWN_TRIGGERS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One row of the demo: its name, which stage makes it, and that stage's settings."""

    name: str
    make: str
    attack: str = ""
    settings: tuple[str, ...] = ()


SUSPECTS = (
    Suspect(name="stolen-soft", make="steal", attack="retrain-soft", settings=("data=owner",)),
    Suspect(name="stolen-soft-other", make="steal", attack="retrain-soft", settings=("data=owner", "model=other")),
    Suspect(name="stolen-hard", make="steal", attack="retrain-hard", settings=("data=owner",)),
    Suspect(name="finetuned", make="remove", attack="finetune"),
    Suspect(name="pruned-50", make="remove", attack="prune", settings=("sparsity=0.5",)),
    Suspect(name="pruned-80", make="remove", attack="prune", settings=("sparsity=0.8",)),
    Suspect(name="8-bit", make="remove", attack="quantize", settings=("bits=8",)),
    Suspect(name="independent-plain", make="protect", settings=("recipe.loss=natural",)),
    Suspect(name="independent-robust", make="protect"),
    Suspect(name="independent-other", make="protect", settings=("recipe.loss=natural", "model=paper-cnn")),
)


def demo(
    data: str,
    out: Path,
    *,
    seed: int = 0,
    settings: Sequence[str] = (),
    data_dir: Path | None = None,
    execution: Execution | None = None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Make every suspect, verify it, and write `summary.json` (and `details.json` for the report).

    Args:
        data: data set.
        out: folder; must not hold a demo yet.
        seed: of the protected model; every stranger gets one of its own.
        settings: `key=value` changes of the protected model's training, which strangers share.
        data_dir: where data are looked for first.
        execution: device and precision.
        progress: called with the name of the step and the fraction done.
    """
    if (out / "summary.json").exists():
        raise ConfigError(f"{out}: already holds a demo; choose another --out (nothing was changed)")
    time = Timer()
    loaded = load(data, data_dir)
    count = len(loaded.train)
    cfg = with_settings(preset("fast", data=loaded.name, eps=None, wm_eps=None, seed=seed, count=count), settings)
    owner = out / "protected"

    def aloud(name: str) -> Progress:
        return lambda what, done: progress(f"{name}: {what}", done)

    with lock_folder(out):
        cells = [
            protect_run(cfg, owner, data_dir=data_dir, execution=execution, resume=True, progress=aloud("protected"))
        ]
        for number, row in enumerate(SUSPECTS, 1):
            place = out / row.name
            _clear(place)
            make = _maker(row, cfg, owner, count, stranger=seed + 100 + number)
            cells.append(make(place, data_dir=data_dir, execution=execution, progress=aloud(row.name)))
        keys = Owner.load(owner)
        cells = [_verified(cell, keys, out / cell.suspect, progress) for cell in cells]
        summary = {"schema": 1, "cells": [to_json(cell) for cell in cells], "seconds": time.seconds}
        write_json(out / "details.json", _details(out, cells, data, data_dir))
        write_json(out / "summary.json", summary)
        return summary


def _maker(row: Suspect, cfg: Protection, owner: Path, count: int, *, stranger: int) -> Callable[..., Result]:
    """Return the call that makes this row's run folder; small data sets get more epochs of theft."""
    epochs = min(60, max(15, 150_000 // count))

    def make(place: Path, **rest: Any) -> Result:
        if row.make == "steal":
            settings = (f"epochs={epochs}", *row.settings)
            return attack_run("steal", owner, row.attack, place, settings=settings, seed=cfg.seed, **rest)
        if row.make == "remove":
            return attack_run("remove", owner, row.attack, place, settings=row.settings, seed=cfg.seed, **rest)
        plain = "recipe.loss=natural" in row.settings
        length = (f"recipe.epochs={cfg.panel.plain_epochs}",) if plain else ()
        return protect_run(with_settings(cfg, ("marks=", f"seed={stranger}", *length, *row.settings)), place, **rest)

    return make


def _verified(cell: Result, owner: Owner, suspect: Path, progress: Progress) -> Result:
    found = verify_cell(owner, suspect, QueryConfig(isolated=False), progress=progress)
    return with_evidence(cell, found)


def _details(out: Path, cells: list[Result], name: str, data_dir: Path | None) -> dict[str, Any]:
    """What the report draws: curves, training figures, and a few triggers (spent by being shown)."""
    data = load(name, data_dir)
    curves = {}
    for cell in cells:
        if cell.kind in ("protected", "independent"):
            curves[cell.suspect] = read_json(out / cell.suspect / "curve.json")
        elif cell.suspect in ("stolen-soft", "finetuned"):
            curves[cell.suspect] = curve(read_model(out / cell.suspect)[0], data, cells[0].robust.eps)  # type: ignore[union-attr]
    lines = (out / "protected" / "metrics.jsonl").read_text().splitlines()
    return {"curves": curves, "training": lines, "triggers": _pictures(out / "protected")}


def _pictures(owner: Path) -> list[dict[str, Any]]:
    """Return the first few triggers with the base image, the keyed label, and the model's answer."""
    key = read_keys(owner).by_mark.get("triggers")
    if not isinstance(key, LabelKey):
        return []
    answers = predict_logits(read_model(owner)[0], key.pixels[:SHOWN_TRIGGERS].float() / 255).argmax(1)
    return [
        {
            "base": key.base_pixels[row].tolist(),
            "trigger": key.pixels[row].tolist(),
            "true": int(key.base[row]),
            "label": int(key.labels[row]),
            "answer": int(answer),
        }
        for row, answer in enumerate(answers)
    ]


def _clear(place: Path) -> None:
    """Remove a suspect left over by an earlier call that was cut off; the protected run is kept and resumed."""
    if place.is_dir():
        for path in sorted(place.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
