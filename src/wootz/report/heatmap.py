"""Evidence of a whole grid at a glance: a row a theft, a column a defence, a color for the bits."""

from __future__ import annotations

from typing import NamedTuple

from wootz.report.formats import p_of
from wootz.report.scale import style
from wootz.report.survey import CONTROLS, HEADINGS, DataSet, Group, Place, Survey, place_name


class Tile(NamedTuple):
    """One place under one defence; `mark` says why it is to be read with care."""

    bits: str
    style: str
    strong: bool
    mark: str
    title: str


class Line(NamedTuple):
    """A row of tiles; None is what was not tested, text what failed."""

    name: str
    tiles: tuple[Tile | str | None, ...]


class Block(NamedTuple):
    """The rows of one kind."""

    kind: str
    title: str
    lines: tuple[Line, ...]


class HeatMap(NamedTuple):
    """One data set's evidence, all marks together; unmarked defences have none and are left out."""

    data: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]


def heat_map(found: Survey, data: DataSet) -> HeatMap | None:
    """Return a data set's heat map, None where nothing was tested."""
    tested = {defence for (_, defence), group in data.groups.items() if group.total is not None}
    defences = [defence for defence in data.defences if defence in tested]
    blocks = []
    for kind, (title, _) in HEADINGS.items():
        places = [place for place, other in data.kinds.items() if other == kind]
        lines = [
            Line(
                place_name(place, data.kinds),
                tuple(_tile(place, data.groups.get((place, defence)), found.names[defence]) for defence in defences),
            )
            for place in places
        ]
        if lines:
            blocks.append(Block(kind, title, tuple(lines)))
    names = tuple(found.names[defence] for defence in defences)
    return HeatMap(data.name, names, tuple(blocks)) if defences else None


def _tile(place: Place, group: Group | None, defence: str) -> Tile | str | None:
    if group is None:
        return None
    if not group.cells:
        return "; ".join(dict.fromkeys(cell.error or "" for cell in group.failed))
    total = group.total
    if total is None:
        return None
    control = place.theft == CONTROLS
    bits = total.most if control else total.mean
    some = not control and 0 < total.reaching < total.n
    what = "highest of" if control else "mean of"
    title = (
        f"{place.theft} against {defence}: {what} {total.n}, {bits:.1f} bits (p = {p_of(bits)}), "
        f"{total.least:.1f} to {total.most:.1f}; {total.reaching} of {total.n} reach the bar of {group.bar:g}"
    )
    mark = "\u2020" if some else ""
    mark += "*" if group.failed else ""
    title += f"; {len(group.failed)} failed" if group.failed else ""
    return Tile(f"{bits:,.0f}", style(bits), bits >= group.bar, mark, title)
