"""How far a test gets at a suspect."""

from __future__ import annotations

from typing import NamedTuple

from wootz.types import Access, Weights
from wootz.verify.walks import Ways


class Reach(NamedTuple):
    """How far a test gets at a suspect.

    Attributes:
        access: what is seen of it.
        budget: images that a mark may ask about, in registered order; None asks about all.
        weights: shows its weights, where it has any to show.
        ways: where it is asked besides if it shows labels only; None asks about plain images alone.
    """

    access: Access = "scores"
    budget: int | None = None
    weights: Weights | None = None
    ways: Ways | None = None

    @property
    def walks(self) -> Ways | None:
        """The ways, where there are any and labels are all that is seen."""
        return self.ways if self.access == "label" else None
