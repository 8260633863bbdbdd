"""Images embedded in a page: Matplotlib figures as SVG elements, and triggers as PNG data URIs."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from wootz.report.read import Trigger

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

_DIVERGING = "RdBu"  # red: darker, white: unchanged, blue: lighter


class Drawing(NamedTuple):
    """A figure for wide and for narrow pages, with a description in words."""

    wide: Markup
    narrow: Markup
    alt: str


@contextmanager
def drawing_style() -> Iterator[None]:
    """Use the style of the report, whatever the caller's Matplotlib settings are, and restore those afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Names may be in any script. Text is not drawn here: the page's own font shows it.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def canvas(
    width: float, height: float, *, rows: int = 1, columns: int = 1, fitted: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of a size in points, and its axes; `fitted` makes room for labels around them."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained" if fitted else None)
    figure.patch.set_visible(False)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def to_svg(figure: Figure, name: str) -> Markup:
    """Return the figure as one `svg` element without scripts, styles or dates; all its ids begin with `name`."""
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
    """Return a name without its XML namespace."""
    return name.rpartition("}")[2]


def _prefixed(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    return value.replace("url(#", f"url(#{name}-")


class TriggerImages(NamedTuple):
    """A trigger as three data URIs, its classes, and its L-inf distance from its base image."""

    base: str
    change: str
    trigger: str
    true: int
    label: int
    answer: int
    distance: str

    @property
    def hit(self) -> bool:
        """Whether the model answers the keyed label."""
        return self.label == self.answer


def trigger_images(triggers: Sequence[Trigger]) -> tuple[TriggerImages, ...]:
    """Return every trigger as images; all changes share one color scale."""
    changes = [_change(trigger) for trigger in triggers]
    largest = max((float(np.abs(change).max()) for change in changes), default=0.0) or 1.0
    return tuple(
        TriggerImages(
            _data_uri(_channels_last(trigger.base)),
            _data_uri(_diverging(change.mean(0) / largest)),
            _data_uri(_channels_last(trigger.trigger)),
            trigger.true,
            trigger.label,
            trigger.answer,
            f"{np.abs(change).max() / 255:.3f}",
        )
        for trigger, change in zip(triggers, changes, strict=True)
    )


def _change(trigger: Trigger) -> NDArray[np.float64]:
    return trigger.trigger.astype(np.float64) - trigger.base.astype(np.float64)


def _diverging(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return values [H, W] in [-1, 1] as colors uint8 [H, W, 3]."""
    colored: NDArray[Any] = matplotlib.colormaps[_DIVERGING]((values + 1) / 2, bytes=True)
    return colored[..., :3]


def _channels_last(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return [C, H, W] as [H, W, 3], or as gray [H, W] if it does not have three channels."""
    return image.transpose(1, 2, 0) if len(image) == 3 else image.mean(0).astype(np.uint8)


def _data_uri(image: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
