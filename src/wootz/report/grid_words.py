"""What the page of a grid says in words: how much was tried, what it comes to, what must not be overlooked."""

from __future__ import annotations

from collections.abc import Sequence

from wootz.records import Result
from wootz.report.bench import Bench
from wootz.report.formats import duration
from wootz.report.survey import CONTROLS, OWNER, DataSet, Survey, defence_of, is_control, reaches
from wootz.report.tables import kept
from wootz.report.words import Figure, lead

_NAMED = 3


def size(found: Survey) -> str:
    """Return how much was tried, in one line."""
    thefts = {place.theft for data in found.data for place in data.kinds} - {OWNER, CONTROLS}
    seeds = {cell.seed for cell in found.cells}
    counts = (
        (len(found.data), "data set"),
        (len(found.names), "defence"),
        (len(thefts), "theft"),
        (len(seeds), "seed"),
        (len(found.cells), "cell"),
    )
    runs = max(data.runs for data in found.data)
    words = ", ".join(f"{count:,} {noun}" + "s" * (count != 1) for count, noun in counts)
    return f"{words} of {runs} runs" if runs > 1 else words


def verdict(found: Survey) -> str:
    """Return the verdict over all cells that were tested."""
    tested = [cell for cell in found.cells if cell.verdict is not None]
    return lead(tested) if tested else "Nothing here has been tested against a key: this page shows accuracy alone."


def alerts(found: Survey) -> tuple[str, ...]:
    """Return what a reader must not overlook: controls at the bar, invalid claims, failures."""
    notes = []
    controls = [cell for cell in found.cells if is_control(cell)]
    high = sorted((cell for cell in controls if reaches(cell)), key=lambda cell: -(cell.bits or 0.0))
    if high:
        named = "; ".join(f"{_where(found, cell)}, {cell.suspect}: {cell.bits:.1f} bits" for cell in high[:_NAMED])
        more = f"; and {len(high) - _NAMED} more" if len(high) > _NAMED else ""
        notes.append(
            f"{len(high)} of {len(controls)} controls reach the bar: something is wrong with these claims, and nothing "
            f"here counts as proof ({named}{more})."
        )
    invalid = sum(cell.verdict == "INVALID CLAIM" for cell in found.cells)
    if invalid:
        notes.append(f"Invalid claims: {invalid}. An independent panel model reaches the bar itself.")
    failed = len(found.failed)
    if failed:
        notes.append(f"Failed cells: {failed:,} of {len(found.cells):,}. They are listed below with their errors.")
    return tuple(notes)


def figures(found: Survey, bench: Bench) -> tuple[Figure, ...]:
    """Return the chief numbers, as far as they are known."""
    shown = []
    copies = [_sum(found.data, kind) for kind in ("stolen", "removed")]
    for (reached, tested), name in zip(copies, ("Stolen: the key shows", "Altered: it shows"), strict=True):
        if tested:
            shown.append(Figure(name, f"{reached} of {tested}", "theft and defence, mean over seeds"))
    controls = [cell for cell in found.cells if is_control(cell) and cell.bits is not None]
    if controls:
        most = max(cell.bits or 0.0 for cell in controls)
        shown.append(
            Figure("Highest control", f"{most:,.1f} bits", f"of {len(controls):,} tests; should stay below the bar")
        )
    if found.failed:
        shown.append(Figure("Failed cells", f"{len(found.failed):,}", f"of {len(found.cells):,}"))
    work = bench.work if bench.work is not None else sum(cell.seconds for cell in found.cells)
    if bench.seconds is not None:
        return (*shown, Figure("Time", duration(bench.seconds), f"wall time; {duration(work)} of work"))
    return (*shown, Figure("Time", duration(work), "all cells together"))


def _sum(data: Sequence[DataSet], kind: str) -> tuple[int, int]:
    counts = [kept(one, defence, kind) for one in data for defence in one.defences]
    return sum(shown for shown, _ in counts), sum(tested for _, tested in counts)


def _where(found: Survey, cell: Result) -> str:
    return f"{cell.axes['data']}, {found.names[defence_of(cell)]}, seed {cell.seed}"
