"""What a theft costs and what it leaves: robust accuracy against bits, a panel a defence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter, StrMethodFormatter

from wootz.records import Result
from wootz.report.formats import percent
from wootz.report.plots import COLORS, MARKERS
from wootz.report.spread import Spread
from wootz.report.survey import (
    CONTROLS,
    HEADINGS,
    OWNER,
    UNMARKED,
    DataSet,
    Defence,
    Evaluation,
    Survey,
    evaluation_of,
    place_name,
    records_of,
)
from wootz.report.svg import INK, SOFT, Drawing, canvas, drawing_style, to_svg

DRAWN = 12
"""Defences that are drawn; a picture of more would be read by nobody."""

_LINEAR = 10.0
"""Bits up to which the scale is even; beyond, each tenfold takes as much room."""


class Point(NamedTuple):
    """A theft: its evidence and its robust accuracy over seeds."""

    name: str
    kind: str
    bits: Spread
    robust: Spread


class Panel(NamedTuple):
    """A defence: its points, every control as (bits, robust), its bar, the unmarked owner's robust accuracy."""

    name: str
    points: tuple[Point, ...]
    controls: tuple[tuple[float, float], ...]
    bar: float
    unmarked: float | None


def trade(found: Survey, data: DataSet) -> Drawing | None:
    """Draw robust accuracy against bits for a data set, None where nothing has both."""
    evaluation = next(iter(data.evaluations), None)
    if evaluation is None:
        return None
    every = [_panel(found, data, defence, evaluation) for defence in data.defences]
    shown = [panel for panel in every if panel.points][:DRAWN]
    if not shown:
        return None
    name = f"trade-{found.data.index(data)}"
    rest = sum(bool(panel.points) for panel in every) - len(shown)
    with drawing_style():
        wide, narrow = _draw(shown, 2 if len(shown) in (2, 4) else 3, f"{name}-wide"), _draw(shown, 1, f"{name}-narrow")
    more = f" {rest} more defences are not drawn." if rest else ""
    return Drawing(wide, narrow, f"Robust accuracy against bits, {data.name}. {' '.join(map(_spoken, shown))}{more}")


def _panel(found: Survey, data: DataSet, defence: Defence, evaluation: Evaluation) -> Panel:
    points, bars, controls = [], [], []
    for place, kind in data.kinds.items():
        group = data.groups.get((place, defence))
        if group is not None and group.total is not None and evaluation in group.robust:
            points.append(Point(place_name(place, data.kinds), kind, group.total, group.robust[evaluation]))
            bars.append(group.bar)
            controls += _single(group.cells, evaluation) if kind == CONTROLS else []
    plain = tuple((axis, UNMARKED if axis == "mark" else name) for axis, name in defence)
    owners = (g for (place, other), g in data.groups.items() if place.theft == OWNER and other == plain)
    unmarked = next((g.robust[evaluation].mean for g in owners if evaluation in g.robust), None)
    return Panel(found.names[defence], tuple(points), tuple(controls), max(bars, default=0.0), unmarked)


def _single(cells: Sequence[Result], evaluation: Evaluation) -> list[tuple[float, float]]:
    """Return bits and robust accuracy of single cells: the mean of robust and plain controls would be neither."""
    found = ((cell.bits, record) for cell in cells for record in records_of(cell))
    return [(bits, r.accuracy) for bits, r in found if bits is not None and evaluation_of(r) == evaluation]


def _draw(shown: Sequence[Panel], columns: int, name: str) -> Markup:
    columns = min(columns, len(shown))
    rows = math.ceil(len(shown) / columns)
    width, height = (380.0 if columns == 1 else 1000.0), 260.0 * rows
    # Every panel has the same labels: margins in points are known, and searching for them takes longest of all.
    figure, axes = canvas(width, height, rows=rows, columns=columns, fitted=False)
    across, down = width / columns, height / rows
    figure.subplots_adjust(
        left=50 / width,
        right=1 - 12 / width,
        bottom=46 / height,
        top=1 - 30 / height,
        wspace=62 / (across - 62),
        hspace=56 / (down - 56),
    )
    most = max(point.bits.most for panel in shown for point in panel.points)
    for place, (panel, one) in enumerate(zip(shown, axes, strict=False)):
        _fill(one, panel, most)
        one.set_xlabel("bits, all marks together" if place >= len(shown) - columns else "")
    for one in axes[len(shown) :]:
        one.set_visible(False)
    return to_svg(figure, name)


def _fill(axes: Axes, panel: Panel, most: float) -> None:
    axes.axvline(panel.bar, color=INK, linewidth=1)
    if panel.unmarked is not None:
        axes.axhline(panel.unmarked, color=SOFT, linewidth=1.2, linestyle=(0, (2, 3)))
    axes.plot(
        *zip(*panel.controls, strict=True) if panel.controls else ([], []),
        linestyle="",
        marker="x",
        markersize=5,
        color=COLORS[CONTROLS],
        markeredgewidth=1.3,
        alpha=0.8,
    )
    for kind in (kind for kind in HEADINGS if kind != CONTROLS):
        points = [point for point in panel.points if point.kind == kind]
        color, owner = COLORS[kind], kind == "protected"
        bits, robust = [point.bits for point in points], [point.robust for point in points]
        right, up = [one.mean for one in bits], [one.mean for one in robust]
        axes.hlines(up, [b.least for b in bits], [b.most for b in bits], color=color, linewidth=1.2, alpha=0.45)
        axes.vlines(right, [r.least for r in robust], [r.most for r in robust], color=color, linewidth=1.2, alpha=0.45)
        axes.plot(
            right,
            up,
            linestyle="",
            marker=MARKERS[kind],
            markersize=9.5 if owner else 6.5,
            color=color,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=4 if owner else 3,
        )
    axes.set_title(panel.name, fontsize=11.5)
    axes.set_xscale("symlog", linthresh=_LINEAR, linscale=0.6)
    axes.set_xlim(-1, max(most, 2 * panel.bar) * 1.35)
    ticks = [0, _LINEAR, panel.bar, *(10.0**power for power in range(2, 6))]
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= max(most, panel.bar) * 1.35]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _spoken(panel: Panel) -> str:
    """Return the chief values of a panel in words."""
    found = []
    for kind, (title, _) in HEADINGS.items():
        points = [point for point in panel.points if point.kind == kind]
        if kind == "protected":
            found += [f"owner {percent(p.robust.mean)} at {p.bits.mean:.0f} bits" for p in points]
        elif kind == CONTROLS:
            found += [f"highest control {p.bits.most:.0f} bits" for p in points]
        elif points:
            reached = sum(point.bits.mean >= panel.bar for point in points)
            found.append(f"{title.lower()}: {reached} of {len(points)} at {panel.bar:g} bits or more")
    return f"{panel.name}: {', '.join(found)}."
