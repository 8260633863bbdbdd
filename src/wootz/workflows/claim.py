"""Write a claim: a signed certificate that a judge can re-check without trusting who wrote it."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wootz import __version__
from wootz.errors import ConfigError
from wootz.keys import (
    AnswerKey,
    Key,
    OwnerKeys,
    read_keys,
    rederive_keys,
    reveal_marks,
    sign_statement,
    signing_key,
)
from wootz.keys.answer_log import log_length
from wootz.models import read_model
from wootz.records import Cell, to_json
from wootz.statistics import required_bits
from wootz.store import append_line, file_digest, read_bytes, read_json, write_bytes, write_tensors
from wootz.suspects.endpoints import Identity
from wootz.types import Progress
from wootz.workflows.guard_log import LOG, read_seals, with_log, without_guard
from wootz.workflows.reference_models import check_boundary_queries, registered_panel
from wootz.workflows.register import read_registered, read_registered_token
from wootz.workflows.run import Timer
from wootz.workflows.suspects import QueryConfig, Where, is_endpoint, open_suspect_model
from wootz.workflows.verify import PANEL_MEMBERS, ask_suspect, own_calibration, verdict_cell

CLAIM = "urn:wootz:claim:2"


def claim_suspect(
    owner: Path, where: Where, out: Path, query: QueryConfig | None = None, *, progress: Progress = lambda *_: None
) -> Cell:
    """Open one tranche of the key, test the suspect with it, and write the certificate and its material.

    A tranche that was opened against one suspect is burnt: it is used for no other one. log2 of all that a claim may
    choose (tranche, access, budget, and the tries that the owner names) comes off its bits.

    Args:
        owner: the run folder, registered.
        where: whom the claim is about, a path or a URL.
        out: the certificate to write; images and panel stand beside it, under the same name with `.safetensors`, and
            the guard's sealed log with `.guard.jsonl`.
        query: how the suspect is asked, one of the registered ways.
        progress: told what is going on.

    Raises:
        KeyFolderError: the run is not registered.
        ConfigError: every tranche is burnt; an access or a budget that was not registered.
    """
    if out.suffix != ".json":
        raise ConfigError(f"{out}: a certificate's name must end in .json")
    time, owner_keys, query = Timer(), read_keys(owner), query or QueryConfig()
    check_options(owner_keys.registration, query, remote=is_endpoint(where))
    registered = read_registered(owner, owner_keys)
    token = read_registered_token(owner, registered)
    models, described, weights = _panel(owner)
    panel = registered_panel(models, owner_keys.registration, owner)
    counted = replace(query, tries=query.tries * choices(owner_keys.registration))
    progress("asking the suspect", 0.0)
    with open_suspect_model(where, query, out.parent) as suspect:
        tranche = burn_tranche(owner, owner_keys, suspect.identity)
        opening, tensors = reveal_marks(owner_keys, tranche)
        keys = rederive_keys(owner_keys.registration, owner_keys.token, opening, tensors)
        keys, guard, discounts = _with_sealed_log(keys, owner, out)
        bar = required_bits(timestamped=bool(owner_keys.token))
        suspect = own_calibration(keys, owner_keys.registration, suspect, query.calibrate)
        verdict = ask_suspect(keys, owner_keys.registration, suspect, panel, counted, bar=bar, discounts=discounts)
    cell = verdict_cell(verdict, suspect, time.seconds)
    material = out.with_suffix(".safetensors")
    write_tensors(material, tensors | weights)
    found = to_json(cell)
    predicate = {
        "wootz": __version__,
        "registered": json.loads(registered),
        "registered_token": base64.b64encode(token).decode(),
        "opened": opening,
        "material": file_digest(material),
        "panel": described,
        "test": {
            "access": access_of(query),
            "budget": query.queries(remote=suspect.remote) or 0,
            "calibrate": query.calibrate,
            "tries": query.tries,
        },
        "found": {
            name: plain_strings(found[name]) for name in ("evidence", "bits", "verdict", "notes") if name in found
        },
        "environment": {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    predicate |= {"guard": guard} if guard else {}
    subject = {suspect.identity.name: suspect.identity.digest}
    write_bytes(out, sign_statement(signing_key(), subject, CLAIM, predicate))
    return cell


def access_of(query: QueryConfig) -> str:
    """Return the name of an access as a registration lists it: `boundary_queries` is `label` with registered paths."""
    return "walks" if query.boundary_queries else query.access


def check_options(registration: Mapping[str, Any], query: QueryConfig, *, remote: bool) -> None:
    """Raise ConfigError where a claim would test the suspect in a way that was not registered before the key."""
    options, access, budget = registration["options"], access_of(query), query.queries(remote=remote) or 0
    if access not in options["accesses"]:
        raise ConfigError(
            f"access = {access!r}: is not registered; a claim with this key tests by {', '.join(options['accesses'])}"
        )
    if budget not in options["budgets"]:
        registered = ", ".join("all" if other == 0 else str(other) for other in options["budgets"])
        raise ConfigError(f"budget = {budget or 'all'}: is not registered; a claim with this key spends {registered}")
    check_boundary_queries(registration, query.boundary_queries)


def choices(registration: Mapping[str, Any]) -> int:
    """Return how many ways to test a suspect a claim chose from: accesses times budgets times tranches."""
    options = registration["options"]
    return len(options["accesses"]) * len(options["budgets"]) * tranches_of(registration)


def tranches_of(registration: Mapping[str, Any]) -> int:
    """Return how many tranches a claim could choose from."""
    return max(len(mark["tranches"]) for mark in registration["marks"].values())


def _with_sealed_log(
    keys: dict[str, Key], owner: Path, out: Path
) -> tuple[dict[str, Key], dict[str, Any], dict[str, float]]:
    """Return the keys with the guard's log up to its last seal, what the claim says of it, and the bits that come off.

    The log is copied beside the certificate. Without a seal the guard is left out.
    """
    seals, log = read_seals(owner), owner / LOG
    guard = next((name for name, key in keys.items() if isinstance(key, AnswerKey)), None)
    if guard is None or not seals or not log.is_file():
        return without_guard(keys), {}, {}
    path = out.with_suffix(".guard.jsonl")
    write_bytes(path, read_bytes(log))
    length = log_length(seals[-1]["lines"])
    keys = with_log(keys, path, count=length.images)
    return keys, {"log": file_digest(path), "seals": seals}, {guard: length.bits}


def burn_tranche(owner: Path, owner_keys: OwnerKeys, suspect: Identity) -> int:
    """Return the tranche to open against this suspect, and note it before anything is asked.

    The next one in order; the same one again where the suspect was claimed before.
    """
    path = owner / "key" / "burnt.jsonl"
    burnt = [json.loads(line) for line in read_bytes(path).splitlines()] if path.is_file() else []
    for entry in burnt:
        if entry["suspect"] == suspect.digest:
            return int(entry["tranche"])
    count = tranches_of(owner_keys.registration)
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
