"""Write a claim: a signed certificate that a judge can re-check without trusting who wrote it."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from wootz import __version__
from wootz.errors import ConfigError, StoreError
from wootz.journal import append_line, read_json_lines
from wootz.keys import (
    AnswerKey,
    Key,
    OwnerKeys,
    check_protocol,
    rederive_keys,
    reveal_marks,
    sign_statement,
    signing_key,
)
from wootz.keys.answer_log import log_length
from wootz.records import Result, to_json
from wootz.statistics import Verdict, required_bits
from wootz.store import lock_folder, read_bytes, read_json, sha256, tensor_bytes, write_bytes
from wootz.suspects.endpoints import Identity
from wootz.types import Progress
from wootz.workflows.guard_log import LOG, read_seals, with_log, without_guard
from wootz.workflows.reference_models import check_boundary_queries
from wootz.workflows.register import read_registered, read_registered_token
from wootz.workflows.run import Timer
from wootz.workflows.suspects import QueryConfig, Suspect, SuspectLike, is_endpoint, named_network, open_suspect_model
from wootz.workflows.verify import ask_suspect, own_calibration, verdict_cell, verify_open_suspect

if TYPE_CHECKING:
    from wootz.workflows.owner import Owner

CLAIM = "urn:wootz:claim:2"

NETWORK_FIELDS, WRAPPER_FIELD = {"schema", "architecture", "settings", "input", "classes"}, {"wrapper"}
"""What a claim says of a panel model, and what it may say: no filters, which the registered digest does not cover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A signed claim about one suspect, with all that a judge needs to re-check it.

    Attributes:
        verdict: what the test showed.
        cell: the same as a record.
        certificate: the signed statement, a DSSE envelope.
        material: revealed images and reference models, a safetensors file.
        guard_log: the guard's sealed log, if the claim has one.
    """

    verdict: Verdict
    cell: Result = field(repr=False)
    certificate: bytes = field(repr=False)
    material: bytes = field(repr=False)
    guard_log: bytes | None = field(repr=False)

    def save(self, path: str | Path) -> None:
        """Write `path` (.json), and beside it the material (.safetensors) and the guard's log (.guard.jsonl).

        Raises:
            ConfigError: the name does not end in .json.
        """
        path = check_certificate_path(path)
        write_bytes(path.with_suffix(".safetensors"), self.material)
        if self.guard_log is not None:
            write_bytes(path.with_suffix(".guard.jsonl"), self.guard_log)
        write_bytes(path, self.certificate)


def claim_suspect(
    owner: Owner,
    suspect: SuspectLike,
    query: QueryConfig | None = None,
    *,
    transcripts: Path | None = None,
    force: bool = False,
    progress: Progress = lambda *_: None,
) -> Claim:
    """Reveal one tranche of the key, test the suspect with it, and sign what was found.

    A tranche that was revealed against one suspect is used for no other one. log2 of all that a claim may choose
    (tranche, access, budget, and the tests that the owner states) comes off its bits.

    Args:
        owner: saved and registered.
        suspect: what the claim is about, see `SuspectLike`; a function cannot be named in a claim.
        query: how the suspect is queried, one of the registered ways.
        transcripts: folder for the transcript of an endpoint; None takes the run folder's.
        force: whether to claim even where the whole key, which reveals nothing, gives fewer bits than the claim needs.
            Endpoints are not queried twice, so for them nothing is checked.
        progress: called with the name of the step and the fraction done.

    Raises:
        KeyFolderError: the run is not registered.
        ConfigError: every tranche was revealed, an access or a budget that was not registered, a function, or a suspect
            that would not reach the bits that the claim needs.
    """
    if not isinstance(suspect, str | Path | nn.Module):
        raise ConfigError("claim: a function has no identity; give a module, a path or a URL")
    assert owner.folder is not None
    timer, folder, keys, query = Timer(), owner.folder, owner.keys, query or QueryConfig()
    check_protocol(keys.registration, folder)
    check_options(keys.registration, query, remote=is_endpoint(suspect))
    registered = read_registered(folder, keys)
    token = read_registered_token(folder, registered)
    described, weights = _described_references(owner)
    panel = owner.reference_models
    counted = replace(query, num_tests=query.num_tests * choices(keys.registration))
    bar = required_bits(timestamped=bool(keys.token))
    progress("querying the suspect", 0.0)
    network = named_network(query.architecture, keys.registration, folder)
    with open_suspect_model(suspect, query, transcripts or folder / "transcripts", network) as opened:
        if not (force or opened.remote):
            _check_reachable(owner, opened, query, bar)
        with lock_folder(folder):
            tranche = mark_revealed(folder, keys, opened.identity)
        revealed, tensors = reveal_marks(keys, tranche)
        testable = rederive_keys(keys.registration, keys.token, revealed, tensors)
        testable, guard, log, discounts = _with_sealed_log(testable, folder)
        opened = own_calibration(testable, keys.registration, opened, query.calibrate)
        verdict = ask_suspect(testable, keys.registration, opened, panel, counted, bar=bar, discounts=discounts)
    cell = verdict_cell(verdict, opened, timer.seconds)
    material = tensor_bytes(tensors | weights)
    record = to_json(cell)
    predicate = {
        "wootz": __version__,
        "registered": json.loads(registered),
        "registered_token": base64.b64encode(token).decode(),
        "opened": revealed,
        "material": sha256(material),
        "panel": described,
        "test": {
            "access": access_of(query),
            "budget": query.queries(remote=opened.remote) or 0,
            "calibrate": query.calibrate,
            "tries": query.num_tests,
        },
        "found": {
            name: plain_strings(record[name]) for name in ("evidence", "bits", "verdict", "notes") if name in record
        },
        "environment": {"python": platform.python_version(), "torch": torch.__version__, "system": platform.system()},
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    predicate |= {"guard": guard} if guard else {}
    subject = {opened.identity.name: opened.identity.digest}
    certificate = sign_statement(signing_key(), subject, CLAIM, predicate)
    return Claim(verdict=verdict, cell=cell, certificate=certificate, material=material, guard_log=log)


def _check_reachable(owner: Owner, suspect: Suspect, query: QueryConfig, bar: float) -> None:
    """Raise ConfigError where the whole key gives fewer bits than a claim needs, before a part of it is revealed."""
    verdict = verify_open_suspect(owner, suspect, query, threshold_bits=bar)
    if verdict.bits < bar:
        without = "" if owner.keys.token else ", since its keys have no time token"
        raise ConfigError(
            f"claim: the whole key gives {verdict.bits:.1f} bits, and a claim of this run needs {bar:g}{without}; "
            "--yes (force=True) reveals a part of the key all the same"
        )


def check_certificate_path(path: str | Path) -> Path:
    """Return the path of a certificate; a name that does not end in .json is a ConfigError."""
    path = Path(path)
    if path.suffix != ".json":
        raise ConfigError(f"{path}: a certificate's name must end in .json")
    return path


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
    keys: dict[str, Key], folder: Path
) -> tuple[dict[str, Key], dict[str, Any], bytes | None, dict[str, float]]:
    """Return the keys with the guard's log up to its last seal, the claim's entry, the log, and the bits that come off.

    Without a seal the guard is left out.
    """
    seals, log = read_seals(folder), folder / LOG
    guard = next((name for name, key in keys.items() if isinstance(key, AnswerKey)), None)
    if guard is None or not seals or not log.is_file():
        return without_guard(keys), {}, None, {}
    data = read_bytes(log)
    length = log_length(seals[-1]["lines"])
    keys = with_log(keys, log, count=length.images)
    return keys, {"log": sha256(data), "seals": seals}, data, {guard: length.bits}


def mark_revealed(owner: Path, owner_keys: OwnerKeys, suspect: Identity) -> int:
    """Return the tranche to open against this suspect, and note it before anything is asked.

    The next one in order; the same one again where the suspect was claimed before.
    """
    path = owner / "key" / "burnt.jsonl"
    count, burnt = tranches_of(owner_keys.registration), list[str]()
    for number, entry in read_json_lines(path) if path.is_file() else ():
        if (
            not isinstance(entry, dict)
            or entry.get("tranche") != len(burnt)
            or not isinstance(entry.get("suspect"), str)
        ):
            raise StoreError(
                f"{path}, line {number}: does not name tranche {len(burnt)} and a suspect; restore the file"
            )
        burnt.append(entry["suspect"])
    if suspect.digest in burnt:
        return burnt.index(suspect.digest)
    if len(burnt) >= count:
        raise ConfigError(
            f"{owner}: all {count} tranches of its key were opened already ({path}); an opened tranche proves "
            "nothing against another suspect"
        )
    entry = {"tranche": len(burnt), "suspect": suspect.digest, "name": suspect.name}
    append_line(path, json.dumps(entry), mode=0o600)
    return len(burnt)


def plain_strings(value: Any) -> Any:
    """Return a record with every float as a decimal string, as signed statements hold numbers."""
    if isinstance(value, float):
        return f"{value:.12g}"
    if isinstance(value, Mapping):
        return {key: plain_strings(item) for key, item in value.items()}
    return [plain_strings(item) for item in value] if isinstance(value, list | tuple) else value


def _described_references(owner: Owner) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Return the reference models' descriptions (`model.json`) and tensors (`panel/NAME/...`)."""
    assert owner.folder is not None
    described: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for name, model in (owner.references._asdict() if owner.references else {}).items():
        plain = read_json(owner.folder / "panel" / name / "model.json")
        fields = {key: plain[key] for key in (*NETWORK_FIELDS, *WRAPPER_FIELD) if key in plain}
        described.append({"name": name, "model": json.dumps(fields, sort_keys=True)})
        tensors |= {f"panel/{name}/{key}": tensor for key, tensor in model.state_dict().items()}
    return described, tensors
