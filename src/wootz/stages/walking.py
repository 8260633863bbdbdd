"""Ask a suspect that shows labels only for its second choices, along ways that were registered before the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from wootz import checks
from wootz.errors import ConfigError
from wootz.evasion import PGD, pgd
from wootz.ownership import Walk
from wootz.rng import generator
from wootz.stages.suspects import Asking
from wootz.types import Predict
from wootz.verify.walks import Away, Walked, second_choices


def walked(
    predict: Predict, panel: Sequence[Predict], guide: nn.Module, registration: Mapping[str, Any], asking: Asking
) -> Walked | None:
    """Return suspect and panel as walks show them; None where nothing is to walk.

    Args:
        predict: the suspect.
        panel: the independent models.
        guide: the first of them, the adversarially trained one: where it leaves a class soonest, the walks go.
        registration: says how far.
        asking: says with how many images.

    Raises:
        ConfigError: the key was registered without walks.
    """
    if not asking.walks:
        return None
    away, classes = _away(registration, guide), len(registration["classes"])
    first, *others = (second_choices(each, away, classes) for each in (predict, *panel))
    return Walked(first, others, asking.walks)


def check_walks(registration: Mapping[str, Any], walks: int) -> None:
    """Raise ConfigError where a claim would walk with another number of images than was registered."""
    if walks and walks != registered_walk(registration).images:
        images = registered_walk(registration).images
        raise ConfigError(
            f"walks = {walks}: a claim walks with the {images} images that were registered, or not at all"
        )


def registered_walk(registration: Mapping[str, Any]) -> Walk:
    """Return how far and with how many images a key's suspects are walked.

    Raises:
        ConfigError: it was registered without walks, or with more than anyone would wait for.
    """
    if "walk" not in registration:
        raise ConfigError("walks: this key was registered without walks; keys that `wootz protect` makes now have them")
    try:
        walk = Walk(**registration["walk"])
        walk = walk._replace(steps=int(walk.steps), images=int(walk.images))
        checks.within(0, 1000, eps=float(walk.eps))
        checks.within(1, 100, steps=walk.steps)
        checks.within(1, 100_000, images=walk.images)
        checks.one_of(("Linf", "L2"), norm=walk.norm)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"walk: is not as `wootz protect` registers it ({error})") from error
    return walk


def _away(registration: Mapping[str, Any], guide: nn.Module) -> Away:
    """Return the ways by PGD against a class, without a random start."""
    walk = registered_walk(registration)
    cfg = PGD(eps=float(walk.eps), norm=walk.norm, steps=walk.steps, random_start=False, keep="last")  # type: ignore[arg-type]

    def away(x: Tensor, classes: Tensor) -> Tensor:
        return pgd(cfg, guide, x, classes, generator=generator(0, "away"))

    return away
