"""The panel, and how suspects that show labels only are walked by it, as far as was registered before the key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from wootz import checks
from wootz.errors import ConfigError
from wootz.evasion import PGD, pgd
from wootz.ownership import Walk
from wootz.rng import generator
from wootz.types import Predict
from wootz.verify import predictor, remembered
from wootz.verify.walks import Away, Walked, second_choices

NO_WALKS = "walks: this key was registered without walks; keys that `wootz protect` makes now have them"


class Panel(NamedTuple):
    """The independent models that tests lean on. What was asked once is remembered.

    Attributes:
        answers: what they answer.
        choices: their answers and second choices as walks show them.
        choices_of: shows a suspect's likewise; None where the key was registered without walks.
    """

    answers: tuple[Predict, ...] = ()
    choices: tuple[Predict, ...] = ()
    choices_of: Callable[[Predict], Predict] | None = None

    def walked(self, predict: Predict, walks: int) -> Walked | None:
        """Return a suspect and the panel as walks with that many images show them; None where there are to be none.

        Raises:
            ConfigError: the key was registered without walks.
        """
        if not walks:
            return None
        if self.choices_of is None:
            raise ConfigError(NO_WALKS)
        return Walked(self.choices_of(predict), self.choices, walks)


def seated(models: Sequence[nn.Module], registration: Mapping[str, Any]) -> Panel:
    """Return the panel of a key. Where the first model, an adversarially trained one, leaves a class, all walk.

    Raises:
        ConfigError: see `registered_walk`.
    """
    answers = tuple(remembered(predictor(model)) for model in models)
    if "walk" not in registration:
        return Panel(answers)
    away, classes = _away(registered_walk(registration), models[0]), len(registration["classes"])

    def choices_of(predict: Predict) -> Predict:
        return remembered(second_choices(predict, away, classes))

    return Panel(answers, tuple(choices_of(answer) for answer in answers), choices_of)


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
        raise ConfigError(NO_WALKS)
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


def _away(walk: Walk, guide: nn.Module) -> Away:
    """Return the ways by PGD against a class, without a random start."""
    cfg = PGD(eps=float(walk.eps), norm=walk.norm, steps=walk.steps, random_start=False, keep="last")  # type: ignore[arg-type]

    def away(x: Tensor, classes: Tensor) -> Tensor:
        return pgd(cfg, guide, x, classes, generator=generator(0, "away"))

    return away
