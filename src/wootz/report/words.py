"""What a page says in words: its verdict in a sentence, its chief numbers, and how to repeat it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from wootz.records import Result
from wootz.report.formats import duration, percent
from wootz.report.matrix import attack_of, kind_of
from wootz.report.read import Findings

SHOWN = "KEY-DEPENDENT"


class Tally(NamedTuple):
    """How many suspects of some kinds show the key, of how many that were tested."""

    shown: int
    tested: int

    def __str__(self) -> str:
        """Return '2 of 3', or 'none of 3'."""
        return f"{self.shown or 'none'} of {self.tested}"


class Figure(NamedTuple):
    """A number that stands out, with what it is."""

    name: str
    value: str
    note: str


def tally(cells: Sequence[Result], *kinds: str) -> Tally:
    """Count suspects of these kinds by verdict; untested ones do not count."""
    words = [cell.verdict for cell in cells if cell.verdict is not None and kind_of(cell) in kinds]
    return Tally(words.count(SHOWN), len(words))


def lead(cells: Sequence[Result]) -> str:
    """Return the verdict over all suspects in plain words."""
    untested = sum(cell.verdict is None for cell in cells)
    if untested == len(cells):
        return "Nothing here has been tested against a key: this page shows accuracy alone."
    owner = tally(cells, "protected")
    model = "the protected model" if owner == (1, 1) else f"{owner} protected models"
    counted = [model] if owner.tested else []
    copies = [(tally(cells, kind), noun) for kind, noun in (("stolen", "stolen"), ("removed", "altered"))]
    named = " and ".join(f"{count} {noun}" for count, noun in copies if count.tested)
    counted += [f"{named} copies"] if named else []
    for kind in ("independent", "unknown"):
        count = tally(cells, kind)
        counted += [f"{count} {kind} models"] if count.tested else []
    rest = f" {untested} of {len(cells)} suspects were not tested." if untested else ""
    return f"The owner's key shows in {_listed(counted)}.{rest}"


def warnings(cells: Sequence[Result]) -> tuple[str, ...]:
    """Return what a reader must not overlook."""
    found = []
    if tally(cells, "independent").shown:
        found.append("A control shows the key: something is wrong with this claim, and nothing here counts as proof.")
    invalid = sum(cell.verdict == "INVALID CLAIM" for cell in cells)
    if invalid:
        found.append(f"Invalid claims: {invalid}. An independent panel model reaches the bar itself.")
    return tuple(found)


def chief(cells: Sequence[Result]) -> Result:
    """Return the cell that a page is mostly about: the protected model's where there is one."""
    return next((cell for cell in cells if cell.kind == "protected"), cells[0])


def figures(findings: Findings) -> tuple[Figure, ...]:
    """Return the chief numbers, as far as they are known."""
    cells = findings.cells
    subjects = [cell for cell in cells if cell.kind == "protected" or findings.source == "run"]
    found = _accuracies(subjects) if len({cell.data for cell in subjects}) == 1 else []
    copies, strangers = tally(cells, "stolen", "removed"), tally(cells, "independent")
    if copies.tested:
        found.append(Figure("Copies that show the key", f"{copies.shown} of {copies.tested}", "stolen or altered"))
    if strangers.tested:
        shown = f"{strangers.shown} of {strangers.tested}"
        found.append(Figure("Controls that show it", shown, "independent models; should be 0"))
    note = {"demo": "the whole demo", "grid": "all cells together", "run": "wall time"}[findings.source]
    return (*found, Figure("Time", duration(findings.seconds), note))


def commands(findings: Findings) -> tuple[str, ...]:
    """Return the commands that make these records again."""
    cells = findings.cells
    first = cells[0]
    data, name = shlex.quote(first.data), shlex.quote(first.suspect)
    if findings.source == "grid":
        return ("wootz bench GRID.toml --out DIR", "wootz report DIR")
    if findings.source == "run":
        return (*_run_commands(first, data), "wootz evaluate RUN", "wootz report RUN")
    suspect = next((shlex.quote(cell.suspect) for cell in cells if cell.kind in ("stolen", "removed")), name)
    return (
        f"wootz demo --data {data} --seed {first.seed} --out DIR",
        f"wootz verify DIR/{name} DIR/{suspect}",
        "wootz report DIR",
    )


def _accuracies(cells: Sequence[Result]) -> list[Figure]:
    """Return clean and robust accuracy of one model, or the mean and the range of several."""
    who = "the protected model" if cells[0].kind == "protected" else cells[0].suspect
    clean = [cell.clean for cell in cells if cell.clean is not None]
    robust = [cell.robust for cell in cells if cell.robust is not None]
    attacks = {attack_of(item) for item in robust}
    found = [_mean("Clean accuracy", clean, who)] if clean else []
    return [*found, _mean("Robust accuracy", [r.accuracy for r in robust], *attacks)] if len(attacks) == 1 else found


def _mean(name: str, values: Sequence[float], note: str) -> Figure:
    if len(values) == 1:
        return Figure(name, percent(values[0]), note)
    spread = f"mean of {len(values)} models, {percent(min(values))} to {percent(max(values))}"
    return Figure(name, percent(sum(values) / len(values)), spread)


def _run_commands(cell: Result, data: str) -> tuple[str, ...]:
    if cell.kind in ("stolen", "removed") and cell.theft is not None:
        verb = "steal" if cell.kind == "stolen" else "remove"
        make = f"wootz {verb} OWNER --attack {shlex.quote(cell.theft)} --seed {cell.seed} --out RUN"
        return (make, "wootz verify OWNER RUN")
    make = f"wootz protect --data {data} --seed {cell.seed} --out RUN"
    if cell.kind == "protected":
        return (make, "wootz verify RUN SUSPECT")
    return (f"{make} --marks none", "wootz verify OWNER RUN")


def _listed(parts: Sequence[str]) -> str:
    """Join as in a sentence: 'a', 'a and in b', 'a, in b, and in c'."""
    if len(parts) < 3:
        return " and in ".join(parts)
    return ", in ".join(parts[:-1]) + f", and in {parts[-1]}"
