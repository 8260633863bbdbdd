"""A cell as experiment trackers know runs: a name, parameters, metrics."""

from __future__ import annotations

import re

from wootz.records import Result, to_json
from wootz.report.formats import budget
from wootz.store import canonical, sha256


def run_name(cell: Result) -> str:
    """Return a name for the cell's run: its digest, and for controls, several of which may share one, the suspect."""
    digest = (cell.digest or record_digest(cell)).removeprefix("sha256:")
    return f"{digest}-{safe(cell.suspect)}" if cell.kind == "independent" else digest


def record_digest(cell: Result) -> str:
    """Return a digest of all that is recorded of a cell; a cell that was measured again has another."""
    return sha256(canonical(to_json(cell)))


def parameters(cell: Result) -> dict[str, str]:
    """Return what tells cells apart: their axes, and suspect, kind and seed."""
    return {"data": cell.data} | cell.axes | {"suspect": cell.suspect, "kind": cell.kind, "seed": str(cell.seed)}


def metrics(cell: Result) -> dict[str, float]:
    """Return the figures of a cell: accuracies as fractions, evidence in bits, seconds."""
    found = {"clean": cell.clean, "robust": None if cell.robust is None else cell.robust.accuracy}
    found |= {f"also/{safe(f'{r.attack}-{r.norm}-{budget(r.eps)}')}": r.accuracy for r in cell.also}
    found |= {f"bits/{safe(item.mark)}": item.bits for item in cell.evidence}
    found |= {"bits/all": cell.bits, "agreement": cell.agreement, "seconds": cell.seconds}
    return {name: float(value) for name, value in found.items() if value is not None}


def safe(name: str) -> str:
    """Return a name without anything that a path, a tag or a tracker would read as more."""
    return re.sub(r"[^0-9A-Za-z._-]+", "_", name).lstrip(".") or "_"
