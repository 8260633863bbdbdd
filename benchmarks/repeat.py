"""Compare the results of a later run of a grid with the range of an earlier run over its seeds.

    python benchmarks/repeat.py EARLIER AGAIN [--json]

Both are files of a grid's results (`cells.jsonl`, `journal.jsonl`). Results of the
same grid cell (axes without the seed; no independent models) are compared, each seed of AGAIN with the range of
EARLIER. If the runs differ by chance only, each of n + 1 values is equally likely to be the smallest or the largest, so
1 in n + 1 is expected below the range of n values and as many above it; results of one owner are correlated, so the
fractions may deviate by more than those of independent results would. Then follow the ratios of means for cells whose
mean in EARLIER reaches the bar, and the cells that changed sides of the bar.
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
    "bits": (lambda result: result.bits, 0.0),
    "clean": (lambda result: result.clean and 100 * result.clean, 0.3),
    "pgd": (lambda result: result.robust and 100 * result.robust.accuracy, 2.0),
}
"""The measures, and the distance from the range (in points of accuracy) that still counts as near it."""

Coordinates = tuple[str, ...]


def by_coordinates(results: Sequence[Result]) -> dict[Coordinates, list[Result]]:
    """Group results by their names along the axes, all seeds together; independent models and failures are left out."""
    grouped: defaultdict[Coordinates, list[Result]] = defaultdict(list)
    for result in results:
        if result.kind != "independent" and result.error is None:
            grouped[tuple(result.axes.values())].append(result)
    return dict(grouped)


def values(results: Sequence[Result], measure: str) -> list[float]:
    """Return the known values of a measure, rounded to a tenth as tables show them."""
    read, _ = MEASURES[measure]
    return [round(value, 1) for result in results if (value := read(result)) is not None]


def compare(
    earlier: dict[Coordinates, list[Result]], again: dict[Coordinates, list[Result]], measure: str
) -> dict[str, float]:
    """Count the later values below, within, above and near the earlier range, and the number expected outside."""
    near, counts = MEASURES[measure][1], dict.fromkeys(("values", "below", "within", "above", "near", "outside"), 0.0)
    for cell in earlier.keys() & again.keys():
        earlier_values = values(earlier[cell], measure)
        for value in values(again[cell], measure) if earlier_values else ():
            low, high = min(earlier_values), max(earlier_values)
            counts["values"] += 1
            counts["below" if value < low else "above" if value > high else "within"] += 1
            counts["near"] += low - near - 1e-9 <= value <= high + near + 1e-9
            counts["outside"] += 2 / (len(earlier_values) + 1)
    return {name: round(count, 1) for name, count in counts.items()}


def ratios(
    earlier: dict[Coordinates, list[Result]], again: dict[Coordinates, list[Result]]
) -> dict[Coordinates, float]:
    """Return the ratio of the later mean of bits to the earlier one, where that reaches the bar, in ascending order."""
    by_cell = {}
    for cell in earlier.keys() & again.keys():
        before, after = (mean(values(results[cell], "bits")) for results in (earlier, again))
        if before >= (earlier[cell][0].bar or 0.0):
            by_cell[cell] = after / before
    return dict(sorted(by_cell.items(), key=lambda item: item[1]))


def changed_sides(
    earlier: dict[Coordinates, list[Result]], again: dict[Coordinates, list[Result]]
) -> tuple[int, dict[Coordinates, list[float]]]:
    """Count cells whose earlier seeds are all on one side of the bar; return those with a later seed on the other."""
    one_sided, changed = 0, {}
    for cell in sorted(earlier.keys() & again.keys()):
        bar = earlier[cell][0].bar or 0.0
        before, after = ([bits >= bar for bits in values(results[cell], "bits")] for results in (earlier, again))
        if len(set(before)) == 1:
            one_sided += 1
            if set(after) != set(before):
                changed[cell] = values(again[cell], "bits")
    return one_sided, changed


def independents(results: Sequence[Result]) -> dict[str, float]:
    """Return the number of tests of independent models, and their highest bits by one mark and by all together."""
    tested = [result for result in results if result.kind == "independent" and result.bits is not None]
    return {
        "tests": len(tested),
        "mark": max((record.bits for result in tested for record in result.evidence), default=0.0),
        "all": max((result.bits or 0.0 for result in tested), default=0.0),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("earlier", type=Path)
    parser.add_argument("again", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    first, second = read_lines(args.earlier), read_lines(args.again)
    earlier, again = by_coordinates(first), by_coordinates(second)
    counts = {measure: compare(earlier, again, measure) for measure in MEASURES}
    by_ratio = ratios(earlier, again)
    tenths = quantiles(by_ratio.values(), n=20, method="inclusive")
    one_sided, changed = changed_sides(earlier, again)
    if args.json:
        summary = {
            "measures": counts,
            "ratios": {" ".join(k): v for k, v in by_ratio.items()},
            "one_sided": one_sided,
            "changed": {" ".join(k): v for k, v in changed.items()},
            "controls": [independents(first), independents(second)],
        }
        print(json.dumps(summary))
        return
    for measure, count in counts.items():
        print(
            f"{measure}: {count['values']:g} values, {count['within']:g} in the range, {count['below']:g} below, "
            f"{count['above']:g} above ({count['outside']:g} outside by chance), {count['near']:g} in or near it"
        )
    print(
        f"bits, mean over earlier mean, {len(by_ratio)} above the bar: nine in ten {tenths[0]:.2f} to {tenths[-1]:.2f}"
    )
    for cell, ratio in (*list(by_ratio.items())[:3], *list(by_ratio.items())[-3:]):
        print(f"  {ratio:.2f} {' '.join(cell)}")
    print(f"on one side of the bar with every earlier seed: {one_sided}; changed sides: {len(changed)}")
    for cell, bits in changed.items():
        print(f"  {' '.join(cell)}: {bits} for {values(earlier[cell], 'bits')}")
    for name, results in (("earlier", first), ("again", second)):
        summary = independents(results)
        print(
            f"controls, {name}: {summary['tests']:g} tests, at most {summary['mark']:.2f} bits, "
            f"{summary['all']:.2f} of all"
        )


if __name__ == "__main__":
    main()
