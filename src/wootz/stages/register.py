"""Sign what a run registered, so that a claim can show it: who registered what, for which model."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from wootz.errors import KeyFolderError
from wootz.ownership import (
    KeyRing,
    opened,
    public_hex,
    public_pem,
    read_keys,
    registration_digest,
    signed,
    signing_file,
    signing_key,
)
from wootz.records import from_json
from wootz.stages.guarding import seal
from wootz.stages.suspects import identify
from wootz.store import read_bytes, read_json, write_bytes

REGISTERED = "urn:wootz:registration:1"
FILE = "registration.dsse.json"
PUBLIC = "owner.pub"


def register_run(run: Path, *, tsa: str | None = None) -> dict[str, Any]:
    """Write the signed registration of a run folder and the owner's public key, and return what it says.

    The statement names the model's digest and carries the registration, the time token that the keys were drawn
    after (where there is one), and clean and robust accuracy as measured at the end of training. Where the model was
    served with its guard, it seals the guard's log as it stands: register again to seal what came since.

    Args:
        run: the run folder.
        tsa: address of an RFC 3161 authority that stamps the guard's log.

    Raises:
        KeyFolderError: the run has no key, or was protected under another signing key.
    """
    ring, key = read_keys(run), signing_key()
    if ring.registration["owner"] != public_hex(key):
        raise KeyFolderError(
            f"{run}: was registered under another signing key than {signing_file()}; "
            "sign with the key it was protected with ($WOOTZ_SIGNING_KEY)"
        )
    identity = identify(run)
    predicate = {
        "registration": ring.registration,
        "digest": registration_digest(ring.registration).hex(),
        "token": base64.b64encode(ring.token).decode(),
        "measured": _measured(run),
    }
    sealed = seal(ring.keys, run, tsa)
    predicate |= {"guard": sealed} if sealed else {}
    write_bytes(run / PUBLIC, public_pem(key))
    write_bytes(run / FILE, signed(key, {identity.name: identity.digest}, REGISTERED, predicate))
    files = {"file": str(run / FILE), "public key": str(run / PUBLIC)}
    told = {name: predicate[name] for name in ("digest", "measured", "guard") if name in predicate}
    return files | {"owner": public_hex(key), "model": identity.digest} | told


def read_registered(run: Path, ring: KeyRing) -> bytes:
    """Return a run's signed registration as it stands, checked against its key.

    Raises:
        KeyFolderError: the run was not registered, or is not the one that was.
    """
    if not (run / FILE).is_file():
        raise KeyFolderError(f"{run}: is not registered yet; run `wootz register {run}` first")
    data = read_bytes(run / FILE)
    if opened(data, REGISTERED).predicate["registration"] != ring.registration:
        raise KeyFolderError(f"{run / FILE}: is another run's, or was written before the key changed; register again")
    return data


def _measured(run: Path) -> dict[str, str]:
    """Return the run's own accuracies, as decimal strings."""
    if not (run / "record.json").is_file():
        return {}
    cell = from_json(read_json(run / "record.json"))
    told = {} if cell.clean is None else {"clean": f"{cell.clean:.4f}"}
    if cell.robust:
        told |= {"robust": f"{cell.robust.accuracy:.4f}", "attack": cell.robust.attack, "eps": f"{cell.robust.eps:g}"}
    return told
