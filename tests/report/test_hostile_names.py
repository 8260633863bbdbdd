"""The report of a grid whose names are attacks on a page, on LaTeX, on a spreadsheet and on Markdown."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import grids
import pytest
from pages import Page

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    r"\input{/etc/passwd} $x_1^2$ 50% & #1 ~ -- {",
    "a | b ** c ` d [e](f) _g_\nh",
    "=1+1",
    "{{ 7 }} {% raw %}",
    "日本 é \u2013",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_only_names(tmp_path: Path, name: str) -> None:
    where: dict[str, Any] = {"data": name, "mark": name, "axes": dict.fromkeys(("model", "loss", "theft"), name)}
    cells = grids.small()
    cells += [
        grids.cell(name, "stolen", 1, bits={name: 50.0}, robust=grids.robust(0.5, name), **where),
        grids.failed(name, "stolen", 2, name, suspect=name, **where),
    ]
    folder = grids.write(tmp_path / "grid", cells)
    (folder / "bench.json").write_text(
        json.dumps({"schema": 1, "name": name, "hardware": {name: name}, "command": name})
    )
    report = grids.texts(folder)
    flat = " ".join(name.split())
    page = Page(report["html"])
    assert {"script", "onerror", "img"}.isdisjoint(page.tags)
    assert " ".join(page.text.split()).count(flat) >= 10
    assert not re.search(r"<(script|img)", report["md"])
    for block in report["md"].split("\n\n"):
        assert len({line.replace(r"\|", "").count("|") for line in block.splitlines() if line.startswith("|")}) <= 1
    rows = grids.lines_of(report["csv"])
    assert all(None not in row and None not in row.values() for row in rows)
    assert {row["theft"].removeprefix("'") for row in rows} >= {flat}
    assert not any(value.startswith(("=", "+", "@")) for row in rows for value in row.values())
    compile_latex(report["tex"], tmp_path)


def compile_latex(text: str, folder: Path) -> None:
    """Compile what a paper would input; without LaTeX, see that braces and special letters balance."""
    bare = re.sub(r"\\textbackslash\{\}|\\[{}$&#_%\\]", "", re.sub(r"(?m)^%.*$", "", text))
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[#%~<>|]", bare.replace("^", ""))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 0
    if shutil.which("pdflatex") is None:
        return
    (folder / "report.tex").write_text(text, "utf-8")
    document = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n\\input{report.tex}\n\\end{document}\n"
    (folder / "paper.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
