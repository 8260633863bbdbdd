"""The report of a grid: four files from lines of cells."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import grids
import pytest
from pages import Page

from wootz.errors import StoreError
from wootz.report import write_report, write_reports
from wootz.report.renderers import value_text
from wootz.report.summary import Stats, stats
from wootz.report.tables import Column, Table, TableRow, Value, split_columns

SHORT = """\
## mnist: what each defence is worth

| defence | clean | pgd-25 | autoattack | bits | stolen | removed | control |
|---|--:|--:|--:|--:|--:|--:|--:|
| pgd-at + wootz | 91.0 (90.0\u201392.0) | 83.0 (80.0\u201386.0) | \u2013 | **150.0** | 1 of 1 | 0 of 1 | 2.5 |
| pgd-at + unmarked | 95.0 | 88.0 | \u2013 | \u2013 | \u2013 | \u2013 | \u2013 |
"""

LONG = """\
| theft | pgd-at + wootz: clean | pgd-at + wootz: pgd-25 | pgd-at + wootz: autoattack | pgd-at + wootz: triggers, bits \
| pgd-at + wootz: runner-up, bits | pgd-at + wootz: all marks, bits |
|---|--:|--:|--:|--:|--:|--:|
| *Owner: the owner's model, before anybody touched it* |  |  |  |  |  |  |
| the owner's model | 91.0 (90.0\u201392.0) | 83.0 (80.0\u201386.0) | \u2013 | **115.0** (100.0\u2013130.0) \
| 35.0\u2020 (20.0\u201350.0) | **150.0** |
| *Stolen: rebuilt from the owner's answers* |  |  |  |  |  |  |
| retrain | 90.0 | 80.0 | 55.0 (50.0\u201360.0) | 1.0 (0.0\u20132.0) | **49.0**\u2020 (28.0\u201370.0) \
| **50.0**\u2020 (30.0\u201370.0) |
| *Removal tried: the owner's weights, changed to lose the marks* |  |  |  |  |  |  |
| prune-50 | 90.0, n 1 | 80.0, n 1 | \u2013 | 10.0, n 1 | 11.0, n 1 | 21.0, n 1 |
| *Independent: made without the key: the controls* |  |  |  |  |  |  |
| independent models | 90.0 | 80.0 | \u2013 | 1.5 | 1.0 | 2.5 |
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return grids.write(tmp_path / "grid", grids.small())


def test_statistics_are_mean_and_range() -> None:
    assert stats([]) is None
    assert stats([1.0, 4.0, 40.0], 40.0) == Stats(15.0, 1.0, 40.0, 3, 1)
    tenths = [0.1] * 10 + [1e16, -1e16]
    orders = (random.Random(seed).sample(tenths, len(tenths)) for seed in range(20))
    assert {stats(order) for order in orders} == {stats(tenths)}  # in whatever order the cells were finished


def test_a_row_is_left_out_of_a_part_that_knows_nothing_of_it() -> None:
    header = (Column("clean", "one"), Column("clean", "two"))
    rows = (
        TableRow("", ("both",), ("1", "2")),
        TableRow("", ("one",), ("1", None)),
        TableRow("", ("none",), (None, None)),
    )
    left, right = split_columns(Table(title="t", stub=("theft",), header=header, rows=rows), 1)
    assert [row.names for row in left.rows] == [("both",), ("one",)]
    assert [row.names for row in right.rows] == [("both",)]


def test_where_nothing_was_tried_the_owners_are_listed_all_the_same(tmp_path: Path) -> None:
    cells = [cell for cell in grids.small() if cell["axes"]["theft"] == "none"]
    text = grids.texts(grids.write(tmp_path / "owners", cells))["md"]
    assert "| pgd-at + unmarked: clean |" in text.split("every theft")[1]


def test_the_markdown_is_what_a_person_would_write(folder: Path) -> None:
    text = grids.texts(folder)["md"]
    assert SHORT in text
    assert LONG in text
    assert "Mean (least to most) over 2 seeds, 2 to an entry unless n says otherwise." in text
    assert "| prune-50-1 | mnist | pgd-at + wootz | prune-50 | 1 | TrainingError: the loss is not finite |" in text


def test_the_csv_has_everything_of_a_group_on_one_line(folder: Path) -> None:
    rows = {(row["mark"], row["theft"]): row for row in grids.lines_of(grids.texts(folder)["csv"])}
    assert len(rows) == 5
    row = rows["wootz", "retrain"]
    expected = {
        "data": "mnist",
        "model": "small-cnn",
        "loss": "pgd-at",
        "access": "scores",
        "kind": "stolen",
        "cells": "2",
        "seeds": "2",
        "failed": "0",
        "bar": "40",
        "reaching": "1",
        "bits_mean": "50",
        "bits_min": "30",
        "bits_max": "70",
        "bits_n": "2",
        "bits_triggers_mean": "1",
        "bits_runner_up_max": "70",
        "robust_autoattack_linf_0.25_mean": "0.55",
        "clean_mean": "0.9",
        "clean_n": "2",
        "errors": "",
    }
    assert {name: row[name] for name in expected} == expected
    broken = rows["wootz", "prune-50"]
    assert (broken["failed"], broken["cells"], broken["errors"]) == ("1", "1", "TrainingError: the loss is not finite")
    assert rows["none", "none"]["bits_mean"] == ""
    assert rows["none", "none"]["bits_n"] == "0"
    assert rows["wootz", "independent"]["bits_max"] == "2.5"


def test_the_page_shows_summaries_first_and_every_failure(folder: Path) -> None:
    page = Page(grids.texts(folder)["html"])
    assert page.headings == [
        "Evidence",
        "What each defence is worth",
        "Robustness against evidence",
        "Every theft",
        "Single cells",
        "What every number means",
        "How to repeat it",
    ]
    assert "1 data set, 2 defences, 2 thefts, 2 seeds, 12 cells" in page.text
    assert "in 2 of 2 protected models, in 1 of 2 stolen and none of 1 altered copies, and in none of 4" in page.text
    assert "Failed cells: 1 of 12" in page.text
    assert "TrainingError: the loss is not finite" in page.text
    assert "controls reach the bar" not in page.text
    assert page.tags.count("svg") >= 2
    assert len(page.ids) == len(set(page.ids))
    assert {"script", "iframe", "object"}.isdisjoint(page.tags)
    assert not re.search(r"https?://|@import|url\((?!#)", grids.texts(folder)["html"])


def test_a_failure_of_all_seeds_stands_in_its_place(tmp_path: Path) -> None:
    cells = [plain for plain in grids.small() if plain["suspect"] != "prune-50-2"]
    report = grids.texts(grids.write(tmp_path / "grid", cells))
    assert "| prune-50 | failed | failed | failed | failed | failed | failed |" in report["md"]
    assert re.search(r'class="broken"[^>]*not finite', report["html"])


def test_a_failed_cell_that_was_run_again_counts_once(tmp_path: Path) -> None:
    again = grids.cell("prune-50", "removed", 1, bits={"triggers": 50.0})
    report = grids.texts(grids.write(tmp_path / "grid", [*grids.small(), again]))
    row = next(row for row in grids.lines_of(report["csv"]) if row["theft"] == "prune-50")
    assert (row["cells"], row["failed"], row["bits_max"]) == ("2", "0", "50")
    assert "Failed cells" not in report["md"]


def test_another_run_of_the_grid_counts_beside_it(tmp_path: Path) -> None:
    again = [
        grids.cell("none", "protected", 1, clean=0.86, bits={"triggers": 10.0}),  # the same digest, measured elsewhere
        grids.cell("none", "protected", 2, clean=0.88, bits={"triggers": 130.0}),
    ]
    first, second = grids.write(tmp_path / "a", grids.small()), grids.write(tmp_path / "b", again)
    report = write_reports(first, [second])
    row = next(row for row in grids.lines_of(report["csv"].read_text("utf-8")) if row["mark"] == "wootz")
    assert (row["theft"], row["cells"], row["clean_mean"], row["clean_min"]) == ("none", "4", "0.89", "0.86")
    assert (row["bits_triggers_min"], row["bits_triggers_n"], row["reaching"]) == ("10", "4", "3")
    assert "Mean (least to most) over 2 seeds of 2 runs, 2 to an entry" in report["md"].read_text("utf-8")
    assert "2 seeds, 14 cells of 2 runs." in report["md"].read_text("utf-8")
    assert not list(second.glob("report.*"))


def test_only_a_run_of_the_same_grid_counts_beside_it(folder: Path, tmp_path: Path) -> None:
    bare = [{key: value for key, value in plain.items() if key != "axes"} for plain in grids.small()]
    wider = [plain | {"axes": plain["axes"] | {"budget": "large"}} for plain in grids.small()]
    for name, cells in (("bare", bare), ("wider", wider)):
        with pytest.raises(StoreError, match=f"{name}: holds no run of the grid in .*grid; runs of one grid"):
            write_reports(folder, [grids.write(tmp_path / name, cells)])


def test_no_measurement_counts_twice(folder: Path, tmp_path: Path) -> None:
    joined = [grids.cell("none", "protected", 3), *grids.small()[:2]]
    for other, cells in ((folder, 12), (grids.write(tmp_path / "joined", joined), 2)):
        with pytest.raises(StoreError, match=f"{other}: {cells} of its cells are those of another run"):
            write_reports(folder, [other])


def test_a_control_at_the_bar_raises_the_alarm(tmp_path: Path) -> None:
    independent = grids.cell("independent", "independent", 1, suspect="independent-9", bits={"triggers": 41.0})
    report = grids.texts(grids.write(tmp_path / "grid", [*grids.small(), independent]))
    alarm = (
        "1 of 5 controls reach the bar: something is wrong with these claims, and nothing here counts as proof "
        "(mnist, pgd-at + wootz, seed 1, independent-9: 41.0 bits)."
    )
    assert alarm in Page(report["html"]).text
    assert "1 of 5 controls reach the bar" in report["md"]
    assert re.search(r'class="tile strong alarm"[^>]*>41<', report["html"])


def test_controls_that_share_axes_stay_apart(tmp_path: Path) -> None:
    cells = [plain | {"digest": "sha256:same"} for plain in grids.small() if plain["kind"] == "independent"]
    rows = grids.lines_of(grids.texts(grids.write(tmp_path / "grid", cells))["csv"])
    assert {row["theft"]: row["cells"] for row in rows} == {"none": "2", "independent": "4"}


def test_watermark_accuracy_never_stands_alone(tmp_path: Path) -> None:
    both = grids.evidence("paper", 12.0, accuracy=0.98, control=0.55)
    alone = grids.evidence("ood", 11.0, accuracy=0.97)
    cells = [
        grids.cell("none", "protected", 1, mark="paper", evidence=[both], bits={}),
        grids.cell("none", "protected", 1, mark="ood", evidence=[alone], bits={}),
    ]
    report = grids.texts(grids.write(tmp_path / "grid", [plain | {"bits": 11.5} for plain in cells]))
    assert r"12.0 \[98.0 : 55.0\]" in report["md"]
    assert "[98.0 : 55.0]" in report["html"]
    assert r"{[}98.0\,:\,55.0{]}" in report["tex"]
    row = grids.lines_of(report["csv"])[0]
    assert (row["taught_paper_mean"], row["untaught_paper_mean"]) == ("0.98", "0.55")
    for text in report.values():
        assert "97.0" not in text
        assert "0.97" not in text


def test_equal_records_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "grid-again")
    assert grids.texts(folder) == grids.texts(folder) == grids.texts(tmp_path / "grid-again")
    assert write_report(folder) == folder / "report.html"
    assert set(grids.texts(folder)) == {"html", "md", "csv", "tex"}


def test_a_grid_of_ten_thousand_cells_stays_readable(tmp_path: Path) -> None:
    thefts = [f"theft-{i}" for i in range(20)]
    cells = [
        grids.cell(theft, "stolen", seed, data=data, axes={"loss": loss}, bits={"triggers": 10.0 + seed})
        for data, loss, theft, seed in itertools.product(("mnist", "other"), ("trades", "mart"), thefts, range(125))
    ]
    assert len(cells) == 10_000
    page = Page(grids.texts(grids.write(tmp_path / "grid", cells))["html"])
    assert "9,700 more stand in cells.jsonl" in page.text
    assert page.tags.count("tr") < 600
    assert "125 to an entry" in page.text


@pytest.mark.parametrize(
    "change",
    [
        {"axes": {"data": "mnist"}},
        {"axes": {}},
        {"axes": {"data": 3}},
        {"axes": 7},
        {"error": 5},
        {"digest": []},
        {"also": [{"eps": 0.1}]},
        {"also": [grids.robust("high")]},
        {"bar": "forty"},  # type: ignore[arg-type]
    ],
)
def test_a_broken_cell_is_an_error_that_names_its_place(folder: Path, change: dict[str, Any]) -> None:
    cells = grids.small()
    cells[1] |= change
    grids.write(folder, cells)
    with pytest.raises(StoreError, match=r"cells\.jsonl, (line|cell) 2"):
        write_report(folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema": 2}',
        '{"schema": 1, "name": 3}',
        '{"schema": 1, "hardware": {"cpu": 8}}',
        '{"schema": 1, "seconds": "long"}',
    ],
)
def test_a_broken_bench_is_an_error_that_names_it(folder: Path, text: str) -> None:
    (folder / "bench.json").write_text(text)
    with pytest.raises(StoreError, match=r"bench\.json"):
        write_report(folder)


def test_bench_says_how_it_was_run(folder: Path) -> None:
    facts = {"schema": 1, "name": "small", "command": "wootz bench small.toml --out DIR", "seconds": 61, "work": 7260}
    facts |= {"hardware": {"processor": "eight cores"}, "versions": {"torch": "2.13"}, "date": "2026-01-02"}
    (folder / "bench.json").write_text(json.dumps(facts))
    text = Page(grids.texts(folder)["html"]).text
    for word in ("small.toml", "eight cores", "2.13", "2026-01-02", "1 min 1 s", "2 h 1 min of work"):
        assert word in text


def test_splitting_columns_keeps_groups_whole() -> None:
    header = tuple(Column(f"c{i}", group) for i, group in enumerate("aabbbcdddd"))
    row = TableRow("", ("r",), tuple(str(i) for i in range(10)))
    table = Table(title="t", stub=("s",), header=header, rows=(row,), notes=("n",))
    cut = split_columns(table, 5)
    assert [[c.name for c in part.header] for part in cut] == [
        ["c0", "c1", "c2", "c3", "c4"],
        [f"c{i}" for i in range(5, 10)],
    ]
    assert [entry for part in cut for entry in part.rows[0].entries] == list(row.entries)
    assert [part.notes for part in cut] == [(), ("n",)]
    assert [len(part.header) for part in split_columns(table, 1)] == [2, 3, 1, 4]


def test_a_value_needs_a_threshold_to_be_bold() -> None:
    high = Stats(50.0, 30.0, 70.0, 2, 1)
    assert not value_text(Value(high, "bits")).reaches
    assert value_text(Value(high, "bits", threshold=50.0)).reaches
    assert value_text(Value(high, "bits", threshold=50.0)).seeds_differ
    assert not value_text(Value(high, "bits", threshold=50.1)).reaches
    assert not value_text(Value(high._replace(reaching=2), "bits", threshold=30.0)).seeds_differ
