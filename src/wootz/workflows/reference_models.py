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
from wootz.attacks.evasion import PGD, margin, pgd, second_margin
from wootz.attacks.evasion.objectives import Objective
from wootz.errors import ConfigError, KeyFolderError
from wootz.keys import BoundarySearchTerms
from wootz.rng import generator
from wootz.statistics import cache_batches
from wootz.statistics.boundary_search import BoundarySearch, PathEnds
from wootz.store import tensor_digest
from wootz.suspects.files import predictor
from wootz.types import Predict
from wootz.watermarks import weights_digest

_PART = re.compile(r"\d{1,4}/\d{1,4}")
_TARGETED, _PAIRWISE = 2 / 3, 1 / 6  # of the eps of untargeted paths, 3 training budgets: 2 and 1/2 of them

NO_BOUNDARY_SEARCH = "walks: this key was registered without walks; keys that `wootz protect` makes now have them"


class ReferenceModels(NamedTuple):
    """The independent models that tests lean on. What was asked once is remembered.

    Attributes:
        answers: what they answer.
        boundary_search: away from classes, as they were registered; None where the key was registered without walks.
    """

    answers: tuple[Predict, ...] = ()
    boundary_search: BoundarySearch | None = None

    def boundary_search_for(self, queries: int) -> BoundarySearch | None:
        """Return the ways for that many queries; None where there are to be none.

        Raises:
            ConfigError: the key was registered without walks.
        """
        if not queries:
            return None
        if self.boundary_search is None:
            raise ConfigError(NO_BOUNDARY_SEARCH)
        return self.boundary_search._replace(queries=queries)


def registered_panel(models: Sequence[nn.Module], registration: Mapping[str, Any], owner: Path) -> ReferenceModels:
    """Return the panel of a run folder, checked against its registration.

    Raises:
        KeyFolderError: the models are not the registered ones.
    """
    if [weights_digest(model) for model in models] != list(registration["panel"]):
        raise KeyFolderError(f"{owner / 'panel'}: holds other models than were registered with the key; restore them")
    return reference_models(models, registration)


def reference_models(models: Sequence[nn.Module], registration: Mapping[str, Any]) -> ReferenceModels:
    """Return the panel of a key.

    Ways away from classes go where the first model, an adversarially trained one, leaves them, and ways towards classes
    where it finds them; short ways between two classes go where the last model, a plain one, finds one of the two.

    Raises:
        ConfigError: see `registered_boundary_search`.
    """
    answers = tuple(cache_batches(predictor(model)) for model in models)
    if "walk" not in registration:
        return ReferenceModels(answers)
    walk = registered_boundary_search(registration)
    grid = [float(Fraction(part)) for part in walk.stops]
    untargeted = PGD(eps=float(walk.eps), norm=walk.norm, steps=walk.steps, random_start=False, keep="last")  # type: ignore[arg-type]
    targeted, pairwise = (
        replace(untargeted, eps=part * untargeted.eps, targeted=True) for part in (_TARGETED, _PAIRWISE)
    )
    ends = (
        _ends(untargeted, models[0], second_margin),
        _ends(targeted, models[0], margin),
        _ends(pairwise, models[-1], margin),
    )
    return ReferenceModels(answers, BoundarySearch(*ends, answers[0], grid, walk.queries))


def check_boundary_queries(registration: Mapping[str, Any], boundary_queries: int) -> None:
    """Raise ConfigError where a claim would walk with another number of queries than was registered."""
    if boundary_queries and boundary_queries != (registered := registered_boundary_search(registration).queries):
        raise ConfigError(
            f"boundary queries: {boundary_queries}; a claim with this key uses the registered {registered}, or none"
        )


def registered_boundary_search(registration: Mapping[str, Any]) -> BoundarySearchTerms:
    """Return how far and with how many queries a key's suspects are walked.

    Raises:
        ConfigError: it was registered without walks, or with more than anyone would wait for.
    """
    if "walk" not in registration:
        raise ConfigError(NO_BOUNDARY_SEARCH)
    try:
        walk = BoundarySearchTerms(**registration["walk"])
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


def _ends(cfg: PGD, guide: nn.Module, objective: Objective) -> PathEnds:
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
