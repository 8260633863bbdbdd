"""What holds for every removal attack."""

from __future__ import annotations

from wootz.attacks.removal import ATTACKS


def test_every_row_says_what_it_is() -> None:
    for name, row in ATTACKS.items():
        assert name == name.lower()
        assert row.source
        assert row.cost
        assert row.access == "weights"
