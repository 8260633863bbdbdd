"""How far a test gets at a suspect."""

from __future__ import annotations

from typing import NamedTuple

from wootz.statistics.boundary_search import BoundarySearch
from wootz.types import Access, Weights


class Reach(NamedTuple):
    """How far a test gets at a suspect.

    Attributes:
        access: what is seen of it.
        budget: images that a mark may ask about, in registered order; None asks about all.
        weights: shows its weights, where it has any to show.
        boundary_search: where it is asked besides if it shows labels only; None asks about plain images alone.
    """

    access: Access = "scores"
    budget: int | None = None
    weights: Weights | None = None
    boundary_search: BoundarySearch | None = None

    @property
    def boundary_queries(self) -> BoundarySearch | None:
        """The ways, where there are any and labels are all that is seen."""
        return self.boundary_search if self.access == "label" else None
