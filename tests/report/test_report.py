from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from pages import Page

from wootz.errors import StoreError
from wootz.report import write_report
from wootz.report.formats import Decimal, colors, contrast, decimal, duration, format_eps, p_from_bits


def read(folder: Path) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def test_a_demo_shows_every_suspect_and_every_number(demo: Path, cells: list[dict[str, Any]]) -> None:
    page = read(demo)
    assert page.headings == [
        "Evidence",
        "Robustness",
        "Training",
        "Triggers",
        "What every number means",
        "How to repeat it",
    ]
    for cell in cells:
        assert cell["suspect"] in page.text
        assert f"{cell['clean']:.1%}" in page.text
        assert f"{cell['robust']['accuracy']:.1%}" in page.text
        assert f"{cell['bits']:.1f} bits" in page.text
        for item in cell["evidence"]:
            assert f"{item['bits']:.1f} bits" in page.text
            assert f"p = {item['p'].split('e')[0]}" in page.text
    assert page.text.count("KEY-DEPENDENT") == 3 + 1  # the glossary's
    assert (
        "in the protected model, in 1 of 2 stolen and 1 of 1 altered copies, and in none of 2 independent" in page.text
    )
    assert "pgd-40x2, eps 0.25, n 750" in page.text
    assert "wootz demo --data mnist-5k --seed 3 --out DIR" in page.text
    assert "6 min 27 s" in page.text


def test_the_page_stands_alone(demo: Path) -> None:
    path = write_report(demo)
    source, page = path.read_text(encoding="utf-8"), read(demo)
    assert path == demo / "report.html"
    assert not re.search(r"https?://|@import|url\((?!#)", source)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert {"script", "iframe", "object"}.isdisjoint(page.tags)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", source)) <= set(page.ids)


def test_equal_records_give_equal_bytes(demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    shutil.copytree(demo, other)
    with matplotlib.rc_context({"lines.linewidth": 9, "svg.hashsalt": None}):
        assert write_report(demo).read_bytes() == write_report(other).read_bytes()
        assert write_report(demo).read_bytes() == write_report(demo).read_bytes()


def test_the_callers_plot_settings_stay(demo: Path) -> None:
    before = dict(matplotlib.rcParams)
    write_report(demo)
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{", "日本 {{ 1 }}"]
)
def test_hostile_names_are_only_names(demo: Path, cells: list[dict[str, Any]], name: str) -> None:
    cells[1] |= {"suspect": name, "theft": name, "verdict": name, "notes": [name], "data": name}
    cells[1]["evidence"][0] |= {"mark": name, "p": name}
    cells[1]["robust"] |= {"attack": name, "flags": [name]}
    details = json.loads((demo / "details.json").read_text())
    details["curves"][name] = details["curves"]["stolen-soft"]
    (demo / "details.json").write_text(json.dumps(details))
    (demo / "summary.json").write_text(json.dumps({"schema": 1, "cells": cells, "seconds": 1}))
    page = read(demo)
    assert page.text.count(name) >= 8
    assert {"script", "onerror"}.isdisjoint(page.tags)
    assert page.tags.count("img") == 3 * 2


def test_a_grid_is_read_line_by_line(grid: Path, cells: list[dict[str, Any]]) -> None:
    page = read(grid)
    assert all(cell["suspect"] in page.text for cell in cells)
    assert "wootz bench GRID.toml --out DIR" in page.text
    assert page.headings == ["Evidence", "What every number means", "How to repeat it"]


def test_a_run_has_its_curve_and_training(run: Path) -> None:
    page = read(run)
    assert page.headings == ["Accuracy", "Robustness", "Training", "What every number means", "How to repeat it"]
    assert "wootz protect --data mnist-5k --seed 3 --out RUN" in page.text
    assert "Nothing here has been tested" in page.text
    assert "KEY-DEPENDENT" not in page.text


def test_absent_sections_are_left_out(demo: Path) -> None:
    (demo / "details.json").unlink()
    assert read(demo).headings == ["Evidence", "What every number means", "How to repeat it"]


def test_the_glossary_says_what_the_records_say(demo: Path, cells: list[dict[str, Any]]) -> None:
    bare = read(demo).text
    assert "docs/evidence.md" in bare
    assert "Null distribution" not in bare
    for number, plain in enumerate(cells):
        triggers, runner_up = plain["evidence"]
        triggers |= {"measure": "fraction of hits", "null": "binomial over keyed labels" if number else "an e-process."}
        runner_up |= {"measure": "cosine <b>"}
    cells[5]["access"] = "label"
    (demo / "summary.json").write_text(json.dumps({"schema": 1, "cells": cells, "seconds": 1}))
    text = read(demo).text
    early, late = (
        f"Statistic: fraction of hits. Null distribution: {null}."
        for null in ("an e-process", "binomial over keyed labels")
    )
    assert f"{early} Or: {late}" in text
    assert text.count(late) == 2  # by scores and by labels, not once per suspect
    assert text.count("Statistic: cosine <b>.") == 2
    assert text.count("access: scores") == 2


def test_what_is_not_known_is_a_dash(demo: Path, cells: list[dict[str, Any]]) -> None:
    for name in ("clean", "robust", "evidence", "bits", "verdict", "access"):
        del cells[2][name]
    del cells[3]["evidence"][1]
    (demo / "summary.json").write_text(json.dumps({"schema": 1, "cells": cells, "seconds": 1}))
    page = read(demo)
    assert page.text.count("\u2013") == 1 + 7 + 1  # the one that explains it, a whole row, one mark
    assert "1 of 6 suspects were not tested" in page.text


def test_a_control_that_shows_the_key_raises_alarm(demo: Path, cells: list[dict[str, Any]]) -> None:
    cells[4]["verdict"] = "KEY-DEPENDENT"
    cells[5]["verdict"] = "INVALID CLAIM"
    (demo / "summary.json").write_text(json.dumps({"schema": 1, "cells": cells, "seconds": 1}))
    page = read(demo)
    assert "A control shows the key" in page.text
    assert "Invalid claims: 1" in page.text


def test_several_protected_models_show_mean_and_range(grid: Path, cells: list[dict[str, Any]]) -> None:
    twins = [cells[0], cells[0] | {"clean": 0.9, "seed": 4}]
    (grid / "cells.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in twins))
    page = read(grid)
    assert "mean of 2 models, 90.0% to 95.5%" in page.text
    assert "2 of 2 protected models" in page.text


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreError, match=r"summary\.json .* cells\.jsonl .* record\.json") as caught:
            write_report(folder)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "missing").exists()


BROKEN = [
    ("summary.json", "{"),
    ("summary.json", "[]"),
    ("summary.json", '{"schema": 2, "cells": [], "seconds": 1}'),
    ("summary.json", '{"schema": 1, "cells": [], "seconds": 1}'),
    ("summary.json", '{"schema": 1, "cells": [[]], "seconds": 1}'),
    ("summary.json", '{"schema": 1, "cells": 7, "seconds": 1}'),
    ("details.json", "null"),
    ("details.json", '{"curves": {"protected": {"eps": [0, 0.1], "accuracy": [1]}}}'),
    ("details.json", '{"curves": {"protected": {"eps": ["0"], "accuracy": [1]}}}'),
    ("details.json", '{"training": ["{"]}'),
    ("details.json", '{"training": ["{\\"epoch\\": 0, \\"loss\\": NaN, \\"clean\\": 1, \\"robust\\": 1}"]}'),
    ("details.json", '{"training": [{}]}'),
    (
        "details.json",
        '{"triggers": [{"base": [[[0, 300]]], "trigger": [[[0, 0]]], "true": 1, "label": 2, "answer": 2}]}',
    ),
    ("details.json", '{"triggers": [{"base": [[[0], []]], "trigger": [[[0]]], "true": 1, "label": 2, "answer": 2}]}'),
    ("details.json", '{"triggers": [{"base": [[[0]]], "trigger": [[[0, 0]]], "true": 1, "label": 2, "answer": 2}]}'),
    ("details.json", '{"triggers": [{"base": [[[0]]], "trigger": [[[0]]], "true": "1", "label": 2, "answer": 2}]}'),
]


@pytest.mark.parametrize(("name", "text"), BROKEN)
def test_a_broken_file_is_an_error_that_names_it(demo: Path, name: str, text: str) -> None:
    (demo / name).write_text(text)
    with pytest.raises(StoreError, match=re.escape(str(demo / name))):
        write_report(demo)
    assert not (demo / "report.html").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"clean": "high"},
        {"bits": float("nan")},
        {"robust": "yes"},
        {"robust": {"eps": 0.1}},
        {"evidence": [1]},
        {"evidence": [{"mark": 3, "p": "1", "bits": 0, "queries": 1, "statistic": 0}]},
        {"seed": None},
        {"suspect": 5},
        {"kind": []},
        {"verdict": {}},
        {"surprise": 1},
        {"schema": 2},
    ],
)
def test_a_broken_cell_is_an_error_that_names_its_line(
    grid: Path, cells: list[dict[str, Any]], change: dict[str, Any]
) -> None:
    cells[1] |= change
    (grid / "cells.jsonl").write_text("".join(json.dumps(cell) + "\n" for cell in cells))
    with pytest.raises(StoreError, match=r"cells\.jsonl, line 2|schema 2"):
        write_report(grid)


def test_a_file_that_is_not_text_is_an_error(grid: Path) -> None:
    (grid / "cells.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match=r"cells\.jsonl: is not text"):
        write_report(grid)


@pytest.mark.parametrize("page", ["light", "dark"])
def test_numbers_stay_readable_on_every_color(page: str) -> None:
    assert min(contrast(*colors(bits / 4, page)) for bits in range(600)) >= 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert colors(120, page) == colors(5000, page)


def test_the_scale_runs_one_way_in_lightness() -> None:
    light = [contrast(colors(bits, "light")[0], "#000000") for bits in range(121)]
    dark = [contrast(colors(bits, "dark")[0], "#000000") for bits in range(121)]
    assert light == sorted(light, reverse=True)
    assert dark == sorted(dark)


def test_formats() -> None:
    assert decimal("2.5e-126") == Decimal("2.5", -126)
    assert decimal("0.8706") == Decimal("0.8706")
    assert decimal("<b>") == Decimal("<b>")
    assert p_from_bits(40) == "9.1e-13"
    assert [format_eps(eps) for eps in (0.25, 0.1, 0.2, 8 / 255, 1 / 3)] == ["0.25", "0.1", "0.2", "8/255", "85/255"]
    assert [duration(s) for s in (4.4, 59.6, 387, 7260)] == ["4 s", "1 min 0 s", "6 min 27 s", "2 h 1 min"]
