"""What the documents promise is there."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from wootz import __version__
from wootz.cli.app import app

ROOT = Path(__file__).parent.parent


def pages() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def anchors(page: Path) -> set[str]:
    """Return what links to the page's headings end in."""
    heads = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


def test_every_link_between_documents_leads_somewhere() -> None:
    for page in pages():
        for link in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            target, _, anchor = link.partition("#")
            if "://" not in link:
                found = page.parent / target if target else page
                assert found.exists(), f"{page}: {link}"
                assert not anchor or anchor in anchors(found), f"{page}: {link}"


def python_page() -> str:
    """Return the Python blocks of docs/python.md, one program."""
    text = (ROOT / "docs" / "python.md").read_text("utf-8")
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def names_after(program: str) -> dict[str, Any]:
    """Run a program and return its names."""
    names: dict[str, Any] = {"__name__": "program"}
    exec(program, names)
    return names


@pytest.mark.long
def test_the_python_page_runs() -> None:
    program = re.sub(r"(epochs\"?[=:] ?)\d+", r"\g<1>1", python_page())
    program = program.replace("owner.claim(owner.model)", "owner.claim(owner.model, force=True)")  # one epoch, few bits
    names = names_after(program)
    assert list(names["verdicts"]) == ["ours", "pruned", "extracted", "independent"]
    assert names["extracted"].queries == len(names["data"].thief)
    assert names["served"].access == "scores"


@pytest.mark.slow
def test_the_python_page_ends_as_it_says() -> None:
    names = names_after(python_page())
    words = {name: verdict.outcome for name, verdict in names["verdicts"].items()}
    del words["extracted"]
    assert words == {"ours": "KEY-DEPENDENT", "pruned": "KEY-DEPENDENT", "independent": "NOT SHOWN"}
    assert names["verdicts"]["independent"].bits < 20


def test_tables_end_with_an_empty_line() -> None:
    for page in pages():
        lines = [*page.read_text("utf-8").splitlines(), ""]
        run_on = [after for line, after in pairwise(lines) if line.startswith("|") and after and after[0] != "|"]
        assert not run_on, f"{page}: {run_on[0]}"


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    names = [command.name for command in app.registered_commands] + [group.name for group in app.registered_groups]
    assert all(f"wootz {name}" in text for name in names)


def test_versions_agree() -> None:
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
