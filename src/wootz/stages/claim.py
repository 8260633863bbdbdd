"""Write a claim: a signed certificate that a judge can re-check without trusting who wrote it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wootz import __version__
from wootz.endpoints import Identity
from wootz.errors import ConfigError
from wootz.models import read_model
from wootz.ownership import AnswerKey, Key, KeyRing, open_marks, opened, opened_keys, read_keys, signed, signing_key
from wootz.records import Cell, to_json
from wootz.stages.guarding import LOG, with_log, without_guard
from wootz.stages.panel import check_walks, seated
from wootz.stages.register import REGISTERED, read_registered
from wootz.stages.run import Clock
from wootz.stages.suspects import Asking, Where, opened_suspect
from wootz.stages.verify import PANEL_MEMBERS, ask_suspect, verdict_cell
from wootz.store import append_line, file_digest, read_bytes, read_json, write_bytes, write_tensors
from wootz.types import Tell
from wootz.verify import bar_of

CLAIM = "urn:wootz:claim:1"


def claim_suspect(
    owner: Path, where: Where, out: Path, asking: Asking | None = None, *, tell: Tell = lambda *_: None
) -> Cell:
    """Open one tranche of the key, test the suspect with it, and write the certificate and its material.

    A tranche that was opened against one suspect is burnt: it is used for no other one.

    Args:
        owner: the run folder, registered.
        where: whom the claim is about, a path or a URL.
        out: the certificate to write; images and panel stand beside it, under the same name with `.safetensors`, and
            the guard's sealed log with `.guard.jsonl`.
        asking: how the suspect is asked; its `tries` are those that the owner made, tranches come on top.
        tell: told what is going on.

    Raises:
        KeyFolderError: the run is not registered.
        ConfigError: every tranche is burnt; walks that were not registered.
    """
    if out.suffix != ".json":
        raise ConfigError(f"{out}: a certificate's name must end in .json")
    time, ring, asking = Clock(), read_keys(owner), asking or Asking()
    asking = replace(asking, tries=asking.tries * tranches_of(ring))
    registered = read_registered(owner, ring)
    check_walks(ring.registration, asking.walks)
    models, described, weights = _panel(owner)
    panel = seated(models, ring.registration)
    tell("asking the suspect", 0.0)
    with opened_suspect(where, asking, out.parent) as suspect:
        tranche = burn_tranche(owner, ring, suspect.identity)
        opening, tensors = open_marks(ring, tranche)
        keys = opened_keys(ring.registration, ring.token, opening, tensors)
        log = _sealed_log(owner, registered, keys, out)
        keys = with_log(keys, log.path, sealed=log.sealed) if log else without_guard(keys)
        bar = bar_of(stamped=bool(ring.token))
        verdict = ask_suspect(keys, ring.registration, suspect, panel, asking, bar=bar)
    cell = verdict_cell(verdict, suspect, time.seconds)
    material = out.with_suffix(".safetensors")
    write_tensors(material, tensors | weights)
    told = to_json(cell)
    predicate = {
        "wootz": __version__,
        "registered": json.loads(registered),
        "opened": opening,
        "material": file_digest(material),
        "guard": file_digest(log.path) if log else "",
        "panel": described,
        "test": _test(asking, bar),
        "found": {name: plain_strings(told[name]) for name in ("evidence", "bits", "verdict", "notes") if name in told},
        "environment": {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    write_bytes(out, signed(signing_key(), {suspect.identity.name: suspect.identity.digest}, CLAIM, predicate))
    return cell


class SealedLog(NamedTuple):
    """The guard's log in a claim, and the chain hash that it is sealed at."""

    path: Path
    sealed: str


def _sealed_log(owner: Path, registered: bytes, keys: Mapping[str, Key], out: Path) -> SealedLog | None:
    """Copy the guard's log beside the certificate, where it was sealed with a time and its key is opened."""
    guard = opened(registered, REGISTERED).predicate.get("guard")
    if not guard or not guard["token"] or not any(isinstance(key, AnswerKey) for key in keys.values()):
        return None
    path = out.with_suffix(".guard.jsonl")
    write_bytes(path, read_bytes(owner / LOG))
    return SealedLog(path, guard["head"])


def _test(asking: Asking, bar: float) -> dict[str, Any]:
    """Return how the suspect was asked, as strings and whole numbers."""
    plain = {"access": asking.access, "bar": f"{bar:g}", "tries": asking.tries, "calibrate": asking.calibrate}
    plain |= {"walks": asking.walks, "client": list(asking.client)}
    return plain | {"budget": "" if asking.budget is None else str(asking.budget)}


def tranches_of(ring: KeyRing) -> int:
    """Return how many tranches a claim could choose from."""
    return max(material.tranches for material in ring.materials.values())


def burn_tranche(owner: Path, ring: KeyRing, suspect: Identity) -> int:
    """Return the tranche to open against this suspect, and note it before anything is asked.

    The next one in order; the same one again where the suspect was claimed before.
    """
    path = owner / "key" / "burnt.jsonl"
    burnt = [json.loads(line) for line in read_bytes(path).splitlines()] if path.is_file() else []
    for entry in burnt:
        if entry["suspect"] == suspect.digest:
            return int(entry["tranche"])
    count = tranches_of(ring)
    if len(burnt) >= count:
        raise ConfigError(
            f"{owner}: all {count} tranches of its key were opened already ({path}); an opened tranche proves "
            "nothing against another suspect"
        )
    entry = {"tranche": len(burnt), "suspect": suspect.digest, "name": suspect.name}
    append_line(path, json.dumps(entry))
    return len(burnt)


def plain_strings(value: Any) -> Any:
    """Return a record with every float as a decimal string, as signed statements hold numbers."""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return {key: plain_strings(item) for key, item in value.items()}
    return [plain_strings(item) for item in value] if isinstance(value, list | tuple) else value


def _panel(owner: Path) -> tuple[list[nn.Module], list[dict[str, Any]], dict[str, Tensor]]:
    """Return the panel's networks, their descriptions (`model.json`), and tensors (`panel/NAME/...`)."""
    models: list[nn.Module] = []
    described: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for name in PANEL_MEMBERS:
        model, _, _ = read_model(owner / "panel" / name)
        models.append(model)
        plain = read_json(owner / "panel" / name / "model.json")
        kept = {key: plain[key] for key in ("schema", "architecture", "settings", "input", "classes")}
        described.append({"name": name, "model": json.dumps(kept, sort_keys=True)})
        tensors |= {f"panel/{name}/{key}": tensor for key, tensor in model.state_dict().items()}
    return models, described, tensors
