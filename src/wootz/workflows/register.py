"""Sign what a run registered and the model that was trained with its keys, so that a claim can show both.

A key is registered with one model. The signed statement is stamped with the model's digest in it, so a model cannot be
put in its place later; the guard's log is sealed each time `register` is called.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from wootz.errors import KeyFolderError, SignatureError
from wootz.keys import (
    OwnerKeys,
    check_protocol,
    check_token,
    public_hex,
    public_pem,
    read_keys,
    registration_digest,
    sign_statement,
    signing_file,
    signing_key,
    verify_statement,
)
from wootz.records import from_json
from wootz.store import lock_folder, read_bytes, read_json, write_bytes
from wootz.workflows.guard_log import seal_log
from wootz.workflows.owner import Owner
from wootz.workflows.suspects import identify
from wootz.workflows.timestamp import fetch_token
from wootz.workflows.verify import verify_own_model

REGISTERED = "urn:wootz:registration:2"
FILE = "registration.dsse.json"
TOKEN = "registration.dsse.tsr"
PUBLIC = "owner.pub"


def register_run(run: Path, *, tsa: str | None = None, owner: Owner | None = None) -> dict[str, Any]:
    """Register the model of a run folder with its key, and seal the guard's log.

    The first call writes the signed statement: the registration, its time token, the model's digest, clean and robust
    accuracy as measured at the end of training, and the bits of each mark in the model itself. Later calls leave it as
    it is. A time token over the statement is fetched where there is none yet and `tsa` is given.

    Args:
        run: the run folder.
        owner: the run's owner, if it is open already.
        tsa: address of an RFC 3161 authority that stamps the statement and the guard's log.

    Raises:
        KeyFolderError: the run has no key, was protected under another signing key, or another model was registered.
    """
    owner_keys, key = read_keys(run), signing_key()
    check_protocol(owner_keys.registration, run)
    if owner_keys.registration["owner"] != public_hex(key):
        raise KeyFolderError(
            f"{run}: was registered under another signing key than {signing_file()}; "
            "sign with the key it was protected with ($WOOTZ_SIGNING_KEY)"
        )
    with lock_folder(run):
        identity = identify(run)
        if is_registered(run):
            statement = verify_statement(read_registered(run, owner_keys), REGISTERED)
            if set(statement.subject.values()) != {identity.digest}:
                raise KeyFolderError(
                    f"{run / 'model.safetensors'}: is not the model that was registered with this key ({run / FILE}); "
                    "a key is registered with one model"
                )
        else:
            predicate = {
                "registration": owner_keys.registration,
                "digest": registration_digest(owner_keys.registration).hex(),
                "token": base64.b64encode(owner_keys.token).decode(),
                "measured": _measured(run),
                "evidence": _own_evidence(owner or Owner.load(run)),
            }
            write_bytes(run / PUBLIC, public_pem(key))
            write_bytes(run / FILE, sign_statement(key, {identity.name: identity.digest}, REGISTERED, predicate))
            statement = verify_statement(read_bytes(run / FILE), REGISTERED)
        if tsa and not (run / TOKEN).is_file():
            write_bytes(run / TOKEN, fetch_token(tsa, read_bytes(run / FILE)))
        seal = seal_log(owner_keys.by_mark, run, tsa)
        result: dict[str, Any] = {"file": str(run / FILE), "public key": str(run / PUBLIC), "owner": public_hex(key)}
        result |= {"model": identity.digest, "stamped": (run / TOKEN).is_file()}
        result |= {name: statement.predicate[name] for name in ("digest", "measured", "evidence")}
        return result | ({"guard": {"head": seal["head"], "lines": seal["lines"]}} if seal else {})


def is_registered(run: Path) -> bool:
    """Return whether a run's registration was signed already."""
    return (run / FILE).is_file()


def read_registered(run: Path, owner_keys: OwnerKeys) -> bytes:
    """Return a run's signed registration, checked against its key.

    Raises:
        KeyFolderError: the run was not registered, or the statement is not about its key.
    """
    if not is_registered(run):
        raise KeyFolderError(f"{run}: is not registered yet; run `wootz register {run}` first")
    data = read_bytes(run / FILE)
    try:
        same = verify_statement(data, REGISTERED).predicate["registration"] == owner_keys.registration
    except (SignatureError, KeyError, TypeError) as error:
        raise KeyFolderError(f"{run / FILE}: is damaged ({error}); restore it") from error
    if not same:
        raise KeyFolderError(f"{run / FILE}: is another run's; restore the one that belongs to this key")
    return data


def read_registered_token(run: Path, statement: bytes) -> bytes:
    """Return the time token over a run's signed registration; empty where there is none.

    Raises:
        KeyFolderError: it is over something else.
    """
    token = read_bytes(run / TOKEN) if (run / TOKEN).is_file() else b""
    if token:
        try:
            check_token(token, statement)
        except SignatureError as error:
            raise KeyFolderError(f"{run / TOKEN}: is not the time token of {run / FILE} ({error})") from error
    return token


def _measured(run: Path) -> dict[str, str]:
    """Return the run's own accuracies, as decimal strings."""
    if not (run / "record.json").is_file():
        return {}
    cell = from_json(read_json(run / "record.json"), str(run / "record.json"))
    measured = {} if cell.clean is None else {"clean": f"{cell.clean:.4f}"}
    if cell.robust:
        measured |= {
            "robust": f"{cell.robust.accuracy:.4f}",
            "attack": cell.robust.attack,
            "eps": f"{cell.robust.eps:g}",
        }
    return measured


def _own_evidence(owner: Owner) -> dict[str, str]:
    """Return the bits of each mark in the owner's model."""
    verdict = verify_own_model(owner)
    return {item.mark: f"{item.bits:.2f}" for item in verdict.evidence} if verdict else {}
