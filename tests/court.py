"""Who stands before a judge in tests."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from authority import Authority


class Court(NamedTuple):
    """Folders: the owner's run, the thief's, a stranger's; who signs for whom; and whom a judge trusts."""

    owner: Path
    thief: Path
    stranger: Path
    keys: Path
    authority: Authority
