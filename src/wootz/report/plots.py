"""Accuracy against budget, and how training went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from wootz.records import Result
from wootz.report.formats import budget, percent
from wootz.report.matrix import kind_of
from wootz.report.read import Curve, Epoch
from wootz.report.svg import INK, SOFT, Drawing, canvas, drawing_style, to_svg

_WIDE, _NARROW = (720.0, 400.0), (360.0, 320.0)
COLORS: Mapping[str, str] = MappingProxyType(
    {"protected": "#0072b2", "stolen": "#bf5200", "removed": "#9b4f96", "independent": "#646f77", "unknown": INK}
)
MARKERS: Mapping[str, str] = MappingProxyType(
    {"protected": "o", "stolen": "s", "removed": "^", "independent": "", "unknown": "D"}
)
_DASHES = ((), (7, 3), (2, 3), (7, 3, 2, 3))


class Stroke(NamedTuple):
    """How a suspect's line looks: color by kind, dashes by its place within the kind; None where no line is drawn."""

    color: str
    marker: str
    dashes: tuple[int, ...] | None


class Line(NamedTuple):
    """A named curve and its look."""

    name: str
    kind: str
    curve: Curve
    stroke: Stroke


def lines_of(curves: Mapping[str, Curve], cells: Sequence[Result], eps: float | None) -> tuple[Line, ...]:
    """Return the curves with their looks, best at the training budget first."""
    kinds = {cell.suspect: kind_of(cell) for cell in cells}
    seen: Counter[str] = Counter()
    lines = []
    for name, curve in curves.items():
        kind = kinds.get(name, "unknown")
        stroke = Stroke(COLORS[kind], MARKERS[kind], _DASHES[seen[kind] % len(_DASHES)])
        lines.append(Line(name, kind, curve, stroke))
        seen[kind] += 1
    at = 0.0 if eps is None else eps
    return tuple(sorted(lines, key=lambda line: -np.interp(at, *line.curve)))


def robustness(lines: Sequence[Line], eps: float | None) -> Drawing:
    """Draw accuracy against eps, a line a suspect, and mark the training budget."""

    def draw(size: tuple[float, float], name: str) -> Markup:
        figure, (axes,) = canvas(*size)
        for line in sorted(lines, key=lambda line: len(line.stroke.dashes or ())):  # dashes stay seen above full lines
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
            axes.text(
                eps, 1.02, f" training eps {budget(eps)}", color=INK, transform=axes.get_xaxis_transform(), va="bottom"
            )
        _fractions(axes, "accuracy")
        axes.set_xlabel("eps: largest change of a pixel (pixels from 0 to 1)")
        axes.margins(x=0.02)
        return to_svg(figure, name)

    with drawing_style():
        return Drawing(draw(_WIDE, "robust-wide"), draw(_NARROW, "robust-narrow"), _spoken(lines, eps))


def training(epochs: Sequence[Epoch]) -> Drawing:
    """Draw validation accuracy and loss by epoch, side by side or (narrow) one below the other."""

    def draw(size: tuple[float, float], shape: tuple[int, int], name: str) -> Markup:
        figure, (left, right) = canvas(*size, rows=shape[0], columns=shape[1])
        count = [figures.epoch + 1 for figures in epochs]
        dot = "o" if len(epochs) == 1 else ""
        series = {"clean": [e.clean for e in epochs], "robust": [e.robust for e in epochs]}
        for label, values, color in zip(series, series.values(), (SOFT, COLORS["protected"]), strict=True):
            left.plot(count, values, color=color, marker=dot)
            left.annotate(label, (count[-1], values[-1]), (6, 0), textcoords="offset points", color=color, va="center")
        right.plot(count, [e.loss for e in epochs], color=COLORS["stolen"], marker=dot)
        _fractions(left, "validation accuracy")
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


def _fractions(axes: Axes, title: str) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_title(title)


def _spoken(lines: Sequence[Line], eps: float | None) -> str:
    """Return the chief values of every line in words."""
    found = []
    for name, _, (budgets, accuracy), _ in lines:
        points = [0.0, *([] if eps is None else [eps]), max(budgets)]
        values = ", ".join(f"{percent(float(np.interp(p, budgets, accuracy)))} at {budget(p)}" for p in points)
        found.append(f"{name}: {values}")
    return "Accuracy against eps. " + "; ".join(found) + "."
