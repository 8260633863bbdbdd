"""The panel, and how suspects that show labels only are walked by it, as far as was registered before the key."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from wootz import checks
from wootz.errors import ConfigError, KeyFolderError
from wootz.evasion import PGD, margin, pgd, second_margin
from wootz.evasion.objectives import Objective
from wootz.marks import weights_digest
from wootz.ownership import Walk
from wootz.rng import generator
from wootz.store import tensor_digest
from wootz.types import Predict
from wootz.verify import predictor, remembered
from wootz.verify.walks import Ends, Ways

_PART = re.compile(r"\d{1,4}/\d{1,4}")
_TOWARDS, _BETWEEN = 2 / 3, 1 / 6  # of the length of ways away: three training budgets, so two, and half a one

NO_WALKS = "walks: this key was registered without walks; keys that `wootz protect` makes now have them"


class Panel(NamedTuple):
    """The independent models that tests lean on. What was asked once is remembered.

    Attributes:
        answers: what they answer.
        ways: away from classes, as they were registered; None where the key was registered without walks.
    """

    answers: tuple[Predict, ...] = ()
    ways: Ways | None = None

    def ways_for(self, queries: int) -> Ways | None:
        """Return the ways for that many queries; None where there are to be none.

        Raises:
            ConfigError: the key was registered without walks.
        """
        if not queries:
            return None
        if self.ways is None:
            raise ConfigError(NO_WALKS)
        return self.ways._replace(queries=queries)


def registered_panel(models: Sequence[nn.Module], registration: Mapping[str, Any], owner: Path) -> Panel:
    """Return the panel of a run folder, checked against its registration.

    Raises:
        KeyFolderError: the models are not the registered ones.
    """
    if [weights_digest(model) for model in models] != list(registration["panel"]):
        raise KeyFolderError(f"{owner / 'panel'}: holds other models than were registered with the key; restore them")
    return seated(models, registration)


def seated(models: Sequence[nn.Module], registration: Mapping[str, Any]) -> Panel:
    """Return the panel of a key.

    Ways away from classes go where the first model, an adversarially trained one, leaves them, and ways towards classes
    where it finds them; short ways between two classes go where the last model, a plain one, finds one of the two.

    Raises:
        ConfigError: see `registered_walk`.
    """
    answers = tuple(remembered(predictor(model)) for model in models)
    if "walk" not in registration:
        return Panel(answers)
    walk = registered_walk(registration)
    stops = [float(Fraction(part)) for part in walk.stops]
    away = PGD(eps=float(walk.eps), norm=walk.norm, steps=walk.steps, random_start=False, keep="last")  # type: ignore[arg-type]
    towards, between = (replace(away, eps=part * away.eps, targeted=True) for part in (_TOWARDS, _BETWEEN))
    ends = _ends(away, models[0], second_margin), _ends(towards, models[0], margin), _ends(between, models[-1], margin)
    return Panel(answers, Ways(*ends, answers[0], stops, walk.queries))


def check_walks(registration: Mapping[str, Any], walks: int) -> None:
    """Raise ConfigError where a claim would walk with another number of queries than was registered."""
    if walks and walks != (registered := registered_walk(registration).queries):
        raise ConfigError(
            f"walks = {walks}: a claim walks with the {registered} queries that were registered, or not at all"
        )


def registered_walk(registration: Mapping[str, Any]) -> Walk:
    """Return how far and with how many queries a key's suspects are walked.

    Raises:
        ConfigError: it was registered without walks, or with more than anyone would wait for.
    """
    if "walk" not in registration:
        raise ConfigError(NO_WALKS)
    try:
        walk = Walk(**registration["walk"])
        walk = walk._replace(steps=int(walk.steps), queries=int(walk.queries))
        checks.within(0, 1000, eps=float(walk.eps))
        checks.within(1, 100, steps=walk.steps)
        checks.within(1, 100, stops=len(walk.stops))
        for part in walk.stops:
            if not _PART.fullmatch(part):
                raise ValueError(f"stops: {part!r} is no part such as 1/2")
            checks.within(0, 1, stops=float(Fraction(part)))
        checks.within(1, 1_000_000, queries=walk.queries)
        checks.one_of(("Linf", "L2"), norm=walk.norm)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"walk: is not as `wootz protect` registers it ({error})") from error
    return walk


def _ends(cfg: PGD, guide: nn.Module, objective: Objective) -> Ends:
    """Return where PGD leads. Where a batch ends is remembered.

    Away, to the second margin: to where the guide finds two wrong classes likelier than the image's; between the two a
    suspect's next class says most of its own opinion.
    """
    known: dict[tuple[str, str], Tensor] = {}

    def ends(x: Tensor, classes: Tensor) -> Tensor:
        batch = tensor_digest(x), tensor_digest(classes)
        if batch not in known:
            known[batch] = pgd(cfg, guide, x, classes, generator=generator(0, "away"), objective=objective)
        return known[batch]

    return ends
