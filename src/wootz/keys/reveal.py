"""What a claim reveals: one tranche of each mark, with its secret and tensors; and the check against the registration.

The owner creates the revealed part and the judge reads it with the functions of this module, so that both test exactly
the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wootz.checks import gray_levels
from wootz.errors import SignatureError
from wootz.keys.documents import read_registration
from wootz.keys.folder import OwnerKeys
from wootz.keys.keys import Key, LabelKey, derive_key, open_tranche
from wootz.keys.material import RegisteredMaterial, check_material
from wootz.keys.registration import CommitmentOpening, commit, key_context, tranche_root
from wootz.store import tensor_digest

_KINDS_WITH_ROWS = ("labels", "half")


def reveal_marks(owner_keys: OwnerKeys, tranche: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a claim reveals (plain JSON, by mark) and the tensors that belong to it (named `MARK/NAME`).

    A mark of one tranche is revealed as a whole with tranche 0, and not with any other.

    Raises:
        SignatureError: no mark has such a tranche.
    """
    revealed: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name in revealed_marks(owner_keys.registration, tranche):
        secret, salt = owner_keys.openings[name][tranche]
        revealed[name] = {"tranche": tranche, "secret": secret.hex(), "salt": salt.hex()}
        tensors |= {
            f"{name}/{key}": tensor for key, tensor in owner_keys.materials[name].tranche(tranche).tensors.items()
        }
    return revealed, tensors


def revealed_marks(registration: Mapping[str, Any], tranche: int) -> list[str]:
    """Return the marks that a claim reveals with this tranche: all that have one, so that none can be left out.

    Raises:
        SignatureError: no mark has such a tranche.
    """
    names = [name for name, entry in registration["marks"].items() if 0 <= tranche < len(entry["tranches"])]
    if not names:
        raise SignatureError(f"tranche {tranche}: no mark has one")
    return names


def rederive_keys(
    registration: Mapping[str, Any], token: bytes, revealed: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Key]:
    """Check the revealed marks against the registration, and derive their keys; keys of kinds with rows come first.

    Args:
        registration: the public registration of the run.
        token: time-stamp response over the registration's digest; empty if the registration requires none.
        revealed: tranche number, secret and salt by mark, see `reveal_marks`.
        tensors: the revealed tensors, named `MARK/NAME`.

    Raises:
        SignatureError: a part does not fit the registration; names it.
    """
    try:
        read_registration(registration)
        context = key_context(registration, token)
        order = sorted(revealed, key=lambda name: (registration["marks"][name]["kind"] not in _KINDS_WITH_ROWS, name))
        return {name: _rederive_key(name, registration, context, revealed[name], tensors) for name in order}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        reason = " ".join(repr(error).split())
        raise SignatureError(f"the opening does not fit its registration ({reason})") from error


def _rederive_key(
    name: str,
    registration: Mapping[str, Any],
    context: bytes,
    revealed: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> Key:
    entry, number, num_classes = registration["marks"][name], revealed["tranche"], len(registration["classes"])
    tranche = entry["tranches"][number]
    opening = CommitmentOpening(bytes.fromhex(revealed["secret"]), bytes.fromhex(revealed["salt"]))
    if commit(opening) != tranche["commitment"]:
        raise SignatureError(f"the secret of {name!r} is not the one that was committed to")
    own = {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
    material = RegisteredMaterial(entry["kind"], own, entry["facts"])
    check_material(material, num_classes, registration["shape"], parts=len(entry["tranches"]))
    if entry["kind"] in _KINDS_WITH_ROWS:
        if tranche_root(own, opening.salt) != tranche["root"]:
            raise SignatureError(f"the images of {name!r} are not those that were registered")
    elif {key: tensor_digest(tensor) for key, tensor in own.items()} != entry["tensors"]:
        raise SignatureError(f"the tensors of {name!r} are not those that were registered")
    if entry["kind"] != "labels":
        return derive_key(name, material, num_classes, [opening.secret], context)
    key = open_tranche(name, material, num_classes, opening.secret, context, number)
    _check_distances(name, key, entry["facts"])
    return key


def _check_distances(name: str, key: LabelKey, params: Mapping[str, Any]) -> None:
    """Check that triggers lie outside the training ball, in whole gray levels: eps + alpha < L-inf <= wm_eps."""
    distance = (key.pixels.short() - key.base_pixels.short()).abs().flatten(1).amax(1)
    low, high = gray_levels(float(params["eps"]) + float(params["alpha"])), gray_levels(float(params["wm_eps"]))
    if not bool(((distance > low) & (distance <= high)).all()):
        raise SignatureError(f"{name!r}: triggers lie outside (eps + alpha, wm_eps]")
