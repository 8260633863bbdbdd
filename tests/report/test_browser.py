"""A real browser looks at the pages."""

from __future__ import annotations

import html
import itertools
import subprocess
from pathlib import Path

import grids
import pytest

from wootz.report import write_report

WIDTHS = (320, 390, 768, 1024, 1280)


def look(page: Path, folder: Path, width: int) -> str:
    """Open the page in a frame of that width and return what the frame's script found, as text."""
    frame = folder / "frame.html"
    source = html.escape(page.read_text(encoding="utf-8"))
    frame.write_text(
        f"""<!DOCTYPE html><meta charset="utf-8">
<iframe style="border:0;width:{width}px;height:9000px" srcdoc="{source}"></iframe>
<script>document.querySelector("iframe").onload = ({{target}}) => {{
  const find = selector => [...target.contentDocument.querySelectorAll(selector)];
  const all = find("body *"), shown = all.map(n => n.getBoundingClientRect());
  const cut = all.filter((node, i) => {{
    const inside = node.closest("thead") || node.parentElement.closest(".scroll");
    return !inside && shown[i].width && (shown[i].left < -0.5 || shown[i].right > {width} + 0.5);
  }});
  const scrolls = find(".scroll").filter(n => n.scrollWidth > n.clientWidth + 1);
  const dead = scrolls.filter(n => getComputedStyle(n).overflowX != "auto" || n.tabIndex != 0);
  const counts = {{"sticking out": cut.length, "scrolling": scrolls.length, "dead": dead.length}};
  for (const [name, count] of Object.entries(counts)) document.body.append(name + ": " + count + "; ");
}};</script>""",
        encoding="utf-8",
    )
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        "--window-size=1400,1000",
        "--dump-dom",
        frame.as_uri(),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_cut_off(demo: Path, tmp_path: Path, width: int) -> None:
    assert "sticking out: 0; scrolling: 0; dead: 0;" in look(write_report(demo), tmp_path, width)


@pytest.mark.browser
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_of_a_grid_is_cut_off_but_what_scrolls(tmp_path: Path, width: int) -> None:
    thefts = [("none", "protected"), ("retrain-soft-other-architecture", "stolen"), ("prune-80", "removed")]
    thefts += [(f"theft-{i}", "stolen") for i in range(12)]
    every = itertools.product(("mnist", "fashion-mnist"), ("paper", "wootz", "content", "frontier"), thefts, range(3))
    cells = [
        grids.cell(theft, kind, seed, mark=mark, data=data, bits={"triggers": 900.0 + seed, "runner-up": 450.0 * seed})
        for data, mark, (theft, kind), seed in every
    ]
    cells += [grids.failed("dfme", "stolen", 1, "TrainingError: " + "the loss is not finite " * 9)]
    cells += [grids.cell("independent", "independent", 1, suspect=f"i-{i}", bits={"triggers": 1.0}) for i in range(9)]
    shown = look(write_report(grids.write(tmp_path / "grid", cells)), tmp_path, width)
    assert "sticking out: 0;" in shown
    assert "dead: 0;" in shown
    assert width > 400 or "scrolling: 0;" not in shown
