"""Every theft and every removal against a marked model and, beside it, against an independent one.

    python benchmarks/attacks.py RUN INDEPENDENT --out DIR [-n 500] [--only NAME ...]   # goes on where it stopped
    python benchmarks/attacks.py --tables DIR/cells.jsonl                               # as Markdown

RUN is a marked run folder, INDEPENDENT one that never met its key. Each attack runs with its defaults, some with
settings beside them (`MORE`), against both; what comes out is tested with RUN's key. Robust accuracy is measured on
`-n` test images, on a fifth as many where the independent model was attacked. A line of `cells.jsonl` is a
cell of schema 1 whose suspect is `marked/...` or `independent/...`; evasion attacks have cells of their own.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from wootz.attacks import evasion
from wootz.errors import Error
from wootz.records import Cell, append, read_lines
from wootz.workflows.attack import FAMILIES, attack_run
from wootz.workflows.evaluate import evaluate_run
from wootz.workflows.owner import Owner
from wootz.workflows.suspects import QueryConfig
from wootz.workflows.verify import verify_cell


class Attempt(NamedTuple):
    """An attack with settings, under a name of its own."""

    family: str
    attack: str
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The attack with its settings."""
        return " ".join((self.attack, *self.settings))

    def against(self, label: str) -> str:
        """The name of its suspect."""
        return f"{label}/{self.family}/{self.name}"


MORE = (
    Attempt("steal", "retrain-soft", ("model=other",)),
    Attempt("steal", "retrain-soft", ("data=owner",)),
    Attempt("steal", "retrain-soft", ("data=other",)),
    Attempt("steal", "retrain-hard", ("model=other",)),
    Attempt("steal", "retrain-hard", ("data=owner",)),
    Attempt("remove", "finetune", ("data=owner", "epochs=10")),
    Attempt("remove", "finetune", ("data=owner", "epochs=10", "lr=1e-2", "loss=pgd-at")),
    Attempt("remove", "rtal", ("epochs=15", "lr=1e-2")),
    Attempt("remove", "regularize", ("epochs=15", "lr=5e-3", "loss=pgd-at")),
    Attempt("remove", "overwrite", ("lr=3e-3",)),
    Attempt("remove", "regress-scores", ("lr=1e-2",)),
    *(Attempt("remove", "prune", (f"sparsity={share}",)) for share in (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)),
    *(Attempt("remove", "quantize", (f"bits={bits}",)) for bits in (6, 5, 4, 3, 2)),
)
EVASION = ("pgd-40x2", "ensemble", *(name for name in evasion.ATTACKS if name != "pgd"))


def attempts() -> list[Attempt]:
    """Return every attack of every family, removals first, which are quickest; the variants come last."""
    plain = [Attempt(family, name) for family in ("remove", "steal") for name in FAMILIES[family].attacks]
    return [*plain, *(Attempt("evade", name) for name in EVASION), *MORE]


def undertake(attempt: Attempt, target: Path, label: str, owner: Owner, out: Path, count: int) -> Cell:
    """Run one attempt and test what comes out."""
    name = attempt.against(label)
    if attempt.family == "evade":
        few = min(count, 200) if attempt.attack == "hop-skip-jump" else count
        return replace(evaluate_run(target, attack=attempt.attack, count=few), suspect=name, theft=None)
    place = out / "suspect"
    shutil.rmtree(place, ignore_errors=True)
    cell = attack_run(attempt.family, target, attempt.attack, place, settings=attempt.settings, count=count)  # type: ignore[arg-type]
    found = verify_cell(owner, place, QueryConfig(isolated=False))
    return replace(cell, suspect=name, evidence=found.evidence, bits=found.bits, bar=found.bar, verdict=found.verdict)


def run(owner: Path, independent: Path, out: Path, count: int, only: list[str]) -> None:
    cells = out / "cells.jsonl"
    done = {cell.suspect for cell in read_lines(cells)} if cells.exists() else set()
    keys = Owner.load(owner)
    for label, target, images in (("marked", owner, count), ("independent", independent, count // 5)):
        for attempt in attempts():
            if attempt.against(label) in done or (only and attempt.attack not in only):
                continue
            try:
                cell = undertake(attempt, target, label, keys, out, images)
            except Error as error:
                print(f"{attempt.against(label)}: {error}", flush=True)
                continue
            append(cells, cell)
            told = {item.mark: round(item.bits, 1) for item in cell.evidence}
            print(f"{cell.suspect}: clean {cell.clean:.3f}, {told}, {cell.seconds} s", flush=True)


def tables(path: Path) -> None:
    """Print what was measured as Markdown: one table a family, a row an attempt, marked beside independent."""
    cells = {cell.suspect: cell for cell in read_lines(path)}
    for family, title in (("steal", "Thefts"), ("remove", "Removals")):
        print(f"\n### {title}\n")
        print("| attack | queries | s | clean | robust | triggers | runner-up | independent: clean | robust | bits |")
        print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
        for attempt in attempts():
            if attempt.family == family and attempt.against("marked") in cells:
                print(row(attempt.name, cells[attempt.against("marked")], cells.get(attempt.against("independent"))))
    print("\n### Evasion\n\n| attack | images | s | marked: clean | robust | independent: clean | robust |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for attempt in attempts():
        if attempt.family == "evade" and attempt.against("marked") in cells:
            marked, other = cells[attempt.against("marked")], cells.get(attempt.against("independent"))
            assert marked.robust
            figures = [str(marked.robust.n), f"{marked.seconds:.0f}", *accuracies(marked), *accuracies(other)]
            print(f"| {attempt.name} | " + " | ".join(figures) + " |")


def row(name: str, marked: Cell, other: Cell | None) -> str:
    bits = {item.mark: item.bits for item in marked.evidence}
    figures = [
        "" if marked.queries is None else f"{marked.queries:,}",
        f"{marked.seconds:.0f}",
        *accuracies(marked),
        *(f"{bits[mark]:.1f}" if mark in bits else "" for mark in ("triggers", "runner-up")),
        *accuracies(other),
        "" if other is None or other.bits is None else f"{other.bits:.1f}",
    ]
    return f"| {name} | " + " | ".join(figures) + " |"


def accuracies(cell: Cell | None) -> list[str]:
    if cell is None or cell.clean is None or cell.robust is None:
        return ["", ""]
    flags = f" ({', '.join(cell.robust.flags)})" if cell.robust.flags else ""
    return [f"{100 * cell.clean:.1f}", f"{100 * cell.robust.accuracy:.1f}{flags}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="*", metavar="RUN INDEPENDENT")
    parser.add_argument("--out", type=Path)
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--tables", type=Path)
    args = parser.parse_args()
    if args.tables:
        tables(args.tables)
    elif len(args.runs) == 2 and args.out:
        run(*args.runs, args.out, args.n, args.only)
    else:
        parser.error("needs RUN INDEPENDENT --out DIR, or --tables FILE")


if __name__ == "__main__":
    main()
