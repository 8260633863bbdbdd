"""What a claim opens: one tranche of each mark, its secret and its tensors; and the check that all of it fits.

The owner writes an opening and the judge reads one by the same functions, so both test exactly the same key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from wootz.checks import gray_levels
from wootz.errors import SignatureError
from wootz.keys.documents import read_registration
from wootz.keys.folder import OwnerKeys
from wootz.keys.keys import Key, LabelKey, RegisteredMaterial, derive, open_tranche
from wootz.keys.materials import check_material
from wootz.keys.registration import CommitmentOpening, commit, key_context, tranche_root
from wootz.store import tensor_digest

_ROWS = ("labels", "half")


def reveal_marks(owner_keys: OwnerKeys, tranche: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a claim reveals (plain JSON, by mark) and the tensors that go with it (`MARK/NAME`).

    A mark of one tranche is opened whole, with the first tranche, and never again.

    Raises:
        SignatureError: no mark has such a tranche.
    """
    opened: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name in revealed_marks(owner_keys.registration, tranche):
        secret, salt = owner_keys.sealed[name][tranche]
        opened[name] = {"tranche": tranche, "secret": secret.hex(), "salt": salt.hex()}
        tensors |= {
            f"{name}/{key}": tensor for key, tensor in owner_keys.materials[name].tranche(tranche).tensors.items()
        }
    return opened, tensors


def revealed_marks(registration: Mapping[str, Any], tranche: int) -> list[str]:
    """Return which marks a claim opens with this tranche: all that have one, so that nobody picks among them."""
    names = [name for name, entry in registration["marks"].items() if 0 <= tranche < len(entry["tranches"])]
    if not names:
        raise SignatureError(f"tranche {tranche}: no mark has one")
    return names


def rederive_keys(
    registration: Mapping[str, Any], token: bytes, opened: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, Key]:
    """Check an opening against the registration, and derive its keys, those of images first.

    Raises:
        SignatureError: something does not fit; says what.
    """
    try:
        read_registration(registration)
        after = key_context(registration, token)
        order = sorted(opened, key=lambda name: (registration["marks"][name]["kind"] not in _ROWS, name))
        return {name: _key(name, registration, after, opened[name], tensors) for name in order}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        reason = " ".join(repr(error).split())
        raise SignatureError(f"the opening does not fit its registration ({reason})") from error


def _key(
    name: str, registration: Mapping[str, Any], after: bytes, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Key:
    public, number = registration["marks"][name], entry["tranche"]
    part = public["tranches"][number]
    sealed = CommitmentOpening(bytes.fromhex(entry["secret"]), bytes.fromhex(entry["salt"]))
    if commit(sealed) != part["commitment"]:
        raise SignatureError(f"the secret of {name!r} is not the one that was committed to")
    own = {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
    check_material(
        RegisteredMaterial(public["kind"], own, public["facts"]),
        len(registration["classes"]),
        registration["shape"],
        parts=len(public["tranches"]),
    )
    if public["kind"] in _ROWS:
        if tranche_root(own, sealed.salt) != part["root"]:
            raise SignatureError(f"the images of {name!r} are not those that were registered")
    elif {key: tensor_digest(tensor) for key, tensor in own.items()} != public["tensors"]:
        raise SignatureError(f"the tensors of {name!r} are not those that were registered")
    material, count = RegisteredMaterial(public["kind"], own, public["facts"]), len(registration["classes"])
    if public["kind"] != "labels":
        return derive(name, material, count, [sealed.secret], after)
    key = open_tranche(name, material, count, sealed.secret, after, number)
    _check_triggers(name, key, public["facts"])
    return key


def _check_triggers(name: str, key: LabelKey, params: Mapping[str, Any]) -> None:
    """Check that triggers lie beyond the training ball, in whole gray levels: eps + alpha < L-inf <= wm_eps."""
    distance = (key.pixels.short() - key.base_pixels.short()).abs().flatten(1).amax(1)
    low, high = gray_levels(float(params["eps"]) + float(params["alpha"])), gray_levels(float(params["wm_eps"]))
    if not bool(((distance > low) & (distance <= high)).all()):
        raise SignatureError(f"{name!r}: triggers lie outside (eps + alpha, wm_eps]")
