"""Does a grid repeat? The cells of a later run of it beside the range that an earlier one saw over its seeds.

    python benchmarks/repeat.py EARLIER AGAIN [--json]

Both are files of a grid's cells (`cells.jsonl`, `journal.jsonl`). Owners, thieves and removers are compared where they
stand in the grid, each seed of AGAIN with the range of EARLIER's. If nothing but chance lies between the two, each of
n + 1 values is as likely as any other to be the least or the most, so that 1 in n + 1 is expected below the range of n
and as many above it; cells of one owner move together, so the shares may be off by more than cells that are apart.
Then the means: where EARLIER's mean reaches the bar, AGAIN's beside it; and who changed sides of the bar.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, quantiles

from wootz.records import Result, read_lines

MEASURES: Mapping[str, tuple[Callable[[Result], float | None], float]] = {
    "bits": (lambda cell: cell.bits, 0.0),
    "clean": (lambda cell: cell.clean and 100 * cell.clean, 0.3),
    "pgd": (lambda cell: cell.robust and 100 * cell.robust.accuracy, 2.0),
}
"""What is compared, and how far beside the range still counts as near it (points of accuracy)."""

Place = tuple[str, ...]


def places(cells: Sequence[Result]) -> dict[Place, list[Result]]:
    """Return what is no control by where it stands, all seeds together."""
    found: defaultdict[Place, list[Result]] = defaultdict(list)
    for cell in cells:
        if cell.kind != "independent" and cell.error is None:
            found[tuple(cell.axes.values())].append(cell)
    return dict(found)


def values(cells: Sequence[Result], measure: str) -> list[float]:
    """Return what is known of a measure, as tables show it: to a tenth."""
    read, _ = MEASURES[measure]
    return [round(value, 1) for cell in cells if (value := read(cell)) is not None]


def beside(earlier: dict[Place, list[Result]], again: dict[Place, list[Result]], measure: str) -> dict[str, float]:
    """Count the later values below, within, near and above the earlier range, and those outside to be expected."""
    near, counts = MEASURES[measure][1], dict.fromkeys(("values", "below", "within", "above", "near", "outside"), 0.0)
    for place in earlier.keys() & again.keys():
        known = values(earlier[place], measure)
        for value in values(again[place], measure) if known else ():
            least, most = min(known), max(known)
            counts["values"] += 1
            counts["below" if value < least else "above" if value > most else "within"] += 1
            counts["near"] += least - near - 1e-9 <= value <= most + near + 1e-9
            counts["outside"] += 2 / (len(known) + 1)
    return {name: round(count, 1) for name, count in counts.items()}


def ratios(earlier: dict[Place, list[Result]], again: dict[Place, list[Result]]) -> dict[Place, float]:
    """Return the later mean of bits over the earlier one, where that reaches the bar, least first."""
    found = {}
    for place in earlier.keys() & again.keys():
        before, after = (mean(values(cells[place], "bits")) for cells in (earlier, again))
        if before >= (earlier[place][0].bar or 0.0):
            found[place] = after / before
    return dict(sorted(found.items(), key=lambda item: item[1]))


def turned(
    earlier: dict[Place, list[Result]], again: dict[Place, list[Result]]
) -> tuple[int, dict[Place, list[float]]]:
    """Return how many places are on one side of the bar with every earlier seed, and those with a seed on the other."""
    one_sided, found = 0, {}
    for place in sorted(earlier.keys() & again.keys()):
        bar = earlier[place][0].bar or 0.0
        before, after = ([bits >= bar for bits in values(cells[place], "bits")] for cells in (earlier, again))
        if len(set(before)) == 1:
            one_sided += 1
            if set(after) != set(before):
                found[place] = values(again[place], "bits")
    return one_sided, found


def strangers(cells: Sequence[Result]) -> dict[str, float]:
    """Return how often controls were tested and the highest bits of one mark and of all together."""
    tested = [cell for cell in cells if cell.kind == "independent" and cell.bits is not None]
    return {
        "tests": len(tested),
        "mark": max((record.bits for cell in tested for record in cell.evidence), default=0.0),
        "all": max((cell.bits or 0.0 for cell in tested), default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path)
    parser.add_argument("again", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    first, second = read_lines(args.earlier), read_lines(args.again)
    earlier, again = places(first), places(second)
    counts = {measure: beside(earlier, again, measure) for measure in MEASURES}
    by_ratio = ratios(earlier, again)
    tenths = quantiles(by_ratio.values(), n=20, method="inclusive")
    one_sided, changed = turned(earlier, again)
    if args.json:
        found = {
            "measures": counts,
            "ratios": {" ".join(k): v for k, v in by_ratio.items()},
            "one_sided": one_sided,
            "changed": {" ".join(k): v for k, v in changed.items()},
            "controls": [strangers(first), strangers(second)],
        }
        print(json.dumps(found))
        return
    for measure, count in counts.items():
        print(
            f"{measure}: {count['values']:g} values, {count['within']:g} in the range, {count['below']:g} below, "
            f"{count['above']:g} above ({count['outside']:g} outside by chance), {count['near']:g} in or near it"
        )
    print(
        f"bits, mean over earlier mean, {len(by_ratio)} above the bar: nine in ten {tenths[0]:.2f} to {tenths[-1]:.2f}"
    )
    for place, ratio in (*list(by_ratio.items())[:3], *list(by_ratio.items())[-3:]):
        print(f"  {ratio:.2f} {' '.join(place)}")
    print(f"on one side of the bar with every earlier seed: {one_sided}; changed sides: {len(changed)}")
    for place, bits in changed.items():
        print(f"  {' '.join(place)}: {bits} for {values(earlier[place], 'bits')}")
    for name, cells in (("earlier", first), ("again", second)):
        found = strangers(cells)
        print(
            f"controls, {name}: {found['tests']:g} tests, at most {found['mark']:.2f} bits, {found['all']:.2f} of all"
        )


if __name__ == "__main__":
    main()
