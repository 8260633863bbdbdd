"""Plots: robust accuracy against eps, the course of training, and robust accuracy against evidence in a grid."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from wootz.records import OWNER_MODEL, UNMARKED, Result
from wootz.report.formats import format_eps, percent
from wootz.report.images import INK, SOFT, Drawing, canvas, drawing_style, to_svg
from wootz.report.read import Curve, Epoch
from wootz.report.summary import (
    DataSetSummary,
    Defence,
    Evaluation,
    GridSummary,
    Stats,
    evaluation_of,
    robust_records,
    row_label,
)
from wootz.report.text import GRID_KINDS, kind_of
from wootz.types import Kind

COLORS: Mapping[Kind, str] = MappingProxyType(
    {"protected": "#0072b2", "stolen": "#bf5200", "removed": "#9b4f96", "independent": "#646f77", "unknown": INK}
)
MARKERS: Mapping[Kind, str] = MappingProxyType(
    {"protected": "o", "stolen": "s", "removed": "^", "independent": "", "unknown": "D"}
)

_WIDE, _NARROW = (720.0, 400.0), (360.0, 320.0)
"""Sizes of a plot on wide and on narrow pages, in points."""

_DASHES = ((), (7, 3), (2, 3), (7, 3, 2, 3))

_MAX_PLOT_PANELS = 12
"""Defences that are drawn; of further ones only the number is given."""

_LINEAR_BITS = 10.0
"""Bits up to which the axis is linear; beyond it is logarithmic."""


class Stroke(NamedTuple):
    """The look of a line: color and marker by kind, dashes by its number within the kind; None draws no line."""

    color: str
    marker: str
    dashes: tuple[int, ...] | None


class RobustnessLine(NamedTuple):
    """The curve of one suspect, and its look."""

    name: str
    kind: Kind
    curve: Curve
    stroke: Stroke


class TradeoffPoint(NamedTuple):
    """A row of a grid under one defence: bits of all marks together, and robust accuracy."""

    name: str
    kind: Kind
    bits: Stats
    robust: Stats


class PlotPanel(NamedTuple):
    """The plot of one defence.

    Attributes:
        name: The name of the defence.
        points: The rows of the grid.
        independent: Bits and robust accuracy of each independent model.
        threshold: The bits that a verdict requires.
        unmarked: Robust accuracy of the owner's model without marks, if it is known.
    """

    name: str
    points: tuple[TradeoffPoint, ...]
    independent: tuple[tuple[float, float], ...]
    threshold: float
    unmarked: float | None


def robustness_lines(
    curves: Mapping[str, Curve], results: Sequence[Result], eps: float | None
) -> tuple[RobustnessLine, ...]:
    """Return the curves with their looks, in descending order of accuracy at the training eps (at 0 if unknown)."""
    kinds = {result.suspect: kind_of(result) for result in results}
    counts: Counter[Kind] = Counter()
    lines = []
    for name, curve in curves.items():
        kind = kinds.get(name, "unknown")
        stroke = Stroke(COLORS[kind], MARKERS[kind], _DASHES[counts[kind] % len(_DASHES)])
        lines.append(RobustnessLine(name, kind, curve, stroke))
        counts[kind] += 1
    at = 0.0 if eps is None else eps
    return tuple(sorted(lines, key=lambda line: -np.interp(at, *line.curve)))


def robustness_plot(lines: Sequence[RobustnessLine], eps: float | None) -> Drawing:
    """Plot accuracy against eps, one line per suspect, with the training eps marked."""

    def draw(size: tuple[float, float], name: str) -> Markup:
        figure, (axes,) = canvas(*size)
        for line in sorted(lines, key=lambda line: len(line.stroke.dashes or ())):  # dashed lines above solid ones
            look = line.stroke
            axes.plot(
                *line.curve,
                color=look.color,
                marker=look.marker,
                markersize=5,
                linestyle=(0, look.dashes) if look.dashes else "-",
            )
        if eps is not None:
            axes.axvline(eps, color=INK, linewidth=1)
            label = f" training eps {format_eps(eps)}"
            axes.text(eps, 1.02, label, color=INK, transform=axes.get_xaxis_transform(), va="bottom")
        _accuracy_axis(axes, "accuracy")
        axes.set_xlabel("eps: largest change of a pixel (pixels from 0 to 1)")
        axes.margins(x=0.02)
        return to_svg(figure, name)

    with drawing_style():
        return Drawing(draw(_WIDE, "robust-wide"), draw(_NARROW, "robust-narrow"), _describe_lines(lines, eps))


def training_plot(epochs: Sequence[Epoch]) -> Drawing:
    """Plot validation accuracy and training loss by epoch, side by side or (narrow) one below the other."""

    def draw(size: tuple[float, float], shape: tuple[int, int], name: str) -> Markup:
        figure, (left, right) = canvas(*size, rows=shape[0], columns=shape[1])
        count = [figures.epoch + 1 for figures in epochs]
        dot = "o" if len(epochs) == 1 else ""
        series = {"clean": [e.clean for e in epochs], "robust": [e.robust for e in epochs]}
        for label, values, color in zip(series, series.values(), (SOFT, COLORS["protected"]), strict=True):
            left.plot(count, values, color=color, marker=dot)
            left.annotate(label, (count[-1], values[-1]), (6, 0), textcoords="offset points", color=color, va="center")
        right.plot(count, [e.loss for e in epochs], color=COLORS["stolen"], marker=dot)
        _accuracy_axis(left, "validation accuracy")
        right.set_title("training loss")
        right.set_ylim(bottom=0)
        right.yaxis.set_major_locator(MaxNLocator(5))
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        return to_svg(figure, name)

    first, last = epochs[0], epochs[-1]
    alt = (
        f"After epoch {first.epoch + 1}: clean {percent(first.clean)}, robust {percent(first.robust)}, "
        f"loss {first.loss:.3g}. After epoch {last.epoch + 1}: clean {percent(last.clean)}, "
        f"robust {percent(last.robust)}, loss {last.loss:.3g}."
    )
    with drawing_style():
        return Drawing(
            draw((960.0, 300.0), (1, 2), "training-wide"), draw((360.0, 520.0), (2, 1), "training-narrow"), alt
        )


def tradeoff_plot(summary: GridSummary, data: DataSetSummary) -> Drawing | None:
    """Plot robust accuracy against bits for a data set, one panel per defence; None if no row has both."""
    evaluation = next(iter(data.evaluations), None)
    if evaluation is None:
        return None
    panels = [_plot_panel(summary, data, defence, evaluation) for defence in data.defences]
    panels = [panel for panel in panels if panel.points]
    drawn, rest = panels[:_MAX_PLOT_PANELS], len(panels[_MAX_PLOT_PANELS:])
    if not drawn:
        return None
    name = f"trade-{summary.data.index(data)}"
    with drawing_style():
        wide = _draw_panels(drawn, 2 if len(drawn) in (2, 4) else 3, f"{name}-wide")
        narrow = _draw_panels(drawn, 1, f"{name}-narrow")
    more = f" {rest} more defences are not drawn." if rest else ""
    description = " ".join(map(_describe_panel, drawn))
    return Drawing(wide, narrow, f"Robust accuracy against bits, {data.name}. {description}{more}")


def _plot_panel(summary: GridSummary, data: DataSetSummary, defence: Defence, evaluation: Evaluation) -> PlotPanel:
    points, thresholds, independent = [], [], []
    for row, kind in data.kinds.items():
        group = data.groups.get((row, defence))
        if group is not None and group.total_bits is not None and evaluation in group.robust:
            points.append(TradeoffPoint(row_label(row, data.kinds), kind, group.total_bits, group.robust[evaluation]))
            thresholds.append(group.threshold)
            independent += _single_points(group.results, evaluation) if kind == "independent" else []
    without_mark = tuple((axis, UNMARKED if axis == "mark" else name) for axis, name in defence)
    owners = (g for (row, other), g in data.groups.items() if row.theft == OWNER_MODEL and other == without_mark)
    unmarked = next((g.robust[evaluation].mean for g in owners if evaluation in g.robust), None)
    return PlotPanel(summary.names[defence], tuple(points), tuple(independent), max(thresholds, default=0.0), unmarked)


def _single_points(results: Sequence[Result], evaluation: Evaluation) -> list[tuple[float, float]]:
    """Return bits and robust accuracy per result: a mean over robust and other independent models says nothing."""
    pairs = ((result.bits, record) for result in results for record in robust_records(result))
    return [(bits, r.accuracy) for bits, r in pairs if bits is not None and evaluation_of(r) == evaluation]


def _draw_panels(panels: Sequence[PlotPanel], columns: int, name: str) -> Markup:
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    width, height = (380.0 if columns == 1 else 1000.0), 260.0 * rows
    # All panels have the same labels, so margins in points are known; a constrained layout takes much longer.
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
    max_bits = max(point.bits.max for panel in panels for point in panel.points)
    for number, (panel, panel_axes) in enumerate(zip(panels, axes, strict=False)):
        _fill_panel(panel_axes, panel, max_bits)
        panel_axes.set_xlabel("bits, all marks together" if number >= len(panels) - columns else "")
    for unused in axes[len(panels) :]:
        unused.set_visible(False)
    return to_svg(figure, name)


def _fill_panel(axes: Axes, panel: PlotPanel, max_bits: float) -> None:
    axes.axvline(panel.threshold, color=INK, linewidth=1)
    if panel.unmarked is not None:
        axes.axhline(panel.unmarked, color=SOFT, linewidth=1.2, linestyle=(0, (2, 3)))
    axes.plot(
        *zip(*panel.independent, strict=True) if panel.independent else ([], []),
        linestyle="",
        marker="x",
        markersize=5,
        color=COLORS["independent"],
        markeredgewidth=1.3,
        alpha=0.8,
    )
    for kind in (kind for kind in GRID_KINDS if kind != "independent"):
        points = [point for point in panel.points if point.kind == kind]
        color, is_owner = COLORS[kind], kind == "protected"
        bits, robust = [point.bits for point in points], [point.robust for point in points]
        x, y = [b.mean for b in bits], [r.mean for r in robust]
        axes.hlines(y, [b.min for b in bits], [b.max for b in bits], color=color, linewidth=1.2, alpha=0.45)
        axes.vlines(x, [r.min for r in robust], [r.max for r in robust], color=color, linewidth=1.2, alpha=0.45)
        axes.plot(
            x,
            y,
            linestyle="",
            marker=MARKERS[kind],
            markersize=9.5 if is_owner else 6.5,
            color=color,
            markeredgecolor="white",
            markeredgewidth=0.7,
            zorder=4 if is_owner else 3,
        )
    axes.set_title(panel.name, fontsize=11.5)
    axes.set_xscale("symlog", linthresh=_LINEAR_BITS, linscale=0.6)
    axes.set_xlim(-1, max(max_bits, 2 * panel.threshold) * 1.35)
    ticks = [0, _LINEAR_BITS, panel.threshold, *(10.0**power for power in range(2, 6))]
    axes.xaxis.set_major_locator(
        FixedLocator([tick for tick in ticks if tick <= max(max_bits, panel.threshold) * 1.35])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylim(-0.03, 1.03)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _accuracy_axis(axes: Axes, title: str) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_title(title)


def _describe_lines(lines: Sequence[RobustnessLine], eps: float | None) -> str:
    """Return the main values of every line in words."""
    texts = []
    for name, _, (budgets, accuracy), _ in lines:
        points = [0.0, *([] if eps is None else [eps]), max(budgets)]
        values = ", ".join(f"{percent(float(np.interp(p, budgets, accuracy)))} at {format_eps(p)}" for p in points)
        texts.append(f"{name}: {values}")
    return "Accuracy against eps. " + "; ".join(texts) + "."


def _describe_panel(panel: PlotPanel) -> str:
    """Return the main values of a panel in words."""
    texts = []
    for kind, (title, _) in GRID_KINDS.items():
        points = [point for point in panel.points if point.kind == kind]
        if kind == "protected":
            texts += [f"owner {percent(p.robust.mean)} at {p.bits.mean:.0f} bits" for p in points]
        elif kind == "independent":
            texts += [f"highest control {p.bits.max:.0f} bits" for p in points]
        elif points:
            reaching = sum(point.bits.mean >= panel.threshold for point in points)
            texts.append(f"{title.lower()}: {reaching} of {len(points)} at {panel.threshold:g} bits or more")
    return f"{panel.name}: {', '.join(texts)}."
