"""Matplotlib figures as SVG elements that can stand in a page: no scripts, no styles, no shared ids, no dates."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, GRID = "#1c252c", "#5a6771", "#dfe4e7"

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "wootz",
    "font.family": ["DejaVu Sans"],  # ships with Matplotlib, so that figures are the same everywhere
    "font.size": 12.5,
    "axes.facecolor": "none",
    "axes.edgecolor": "#c3cbd0",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 12.5,
    "axes.titlecolor": SOFT,
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.labelcolor": SOFT,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "lines.linewidth": 2.2,
    "lines.scale_dashes": False,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
    "xtick.color": "#c3cbd0",
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "ytick.major.size": 0,
}
_DROPPED = ("metadata", "style")


class Drawing(NamedTuple):
    """One figure twice, for wide and for narrow pages, with what it shows in words."""

    wide: Markup
    narrow: Markup
    alt: str


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw in our style, whatever the user's own settings are, and leave those as they were."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Names may be in any script. Text stays text: the page's own font shows it, whatever DejaVu lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, fitted: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of so many units, and its axes; `fitted` makes room for whatever is drawn beside them."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained" if fitted else None)
    figure.patch.set_visible(False)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def to_svg(figure: Figure, name: str) -> Markup:
    """Return the figure as one `svg` element whose ids all begin with `name`."""
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        for child in list(element):
            if _local(child.tag) in _DROPPED:
                element.remove(child)
        element.tag = _local(element.tag)
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            element.attrib[_local(key)] = _prefixed(_local(key), value, name)
    box = root.attrib["viewBox"]
    root.attrib.clear()
    root.attrib |= {"viewBox": box, "class": "plot", "aria-hidden": "true"}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _local(name: str) -> str:
    """Return a name without its XML namespace, as HTML wants it."""
    return name.rpartition("}")[2]


def _prefixed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    return value.replace("url(#", f"url(#{name}-")
