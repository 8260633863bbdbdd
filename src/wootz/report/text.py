"""Sentences and figures of the pages: headings of kinds, the lead, alerts, chief figures, and commands to repeat."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from wootz.records import INDEPENDENT, OWNER_MODEL, Result, RobustRecord
from wootz.report.formats import duration, format_eps, percent
from wootz.report.read import Findings, GridMetadata
from wootz.report.summary import (
    GridSummary,
    count_surviving,
    defence_of,
    is_independent,
    reaches_threshold,
)
from wootz.types import KINDS, Kind, Outcome

_GRID_COMMANDS = ("wootz bench GRID.toml --out DIR", "wootz report DIR")

_MAX_NAMED = 3
"""At most this many independent models that reach the threshold are named in an alert."""

_NOT_TESTED = "Nothing here has been tested against a key: this page shows accuracy alone."


class KindText(NamedTuple):
    """The heading of a kind of suspects, and what it means."""

    title: str
    meaning: str


SUSPECT_KINDS: Mapping[Kind, KindText] = MappingProxyType(
    {
        "protected": KindText("Protected", "trained with the owner's key"),
        "stolen": KindText("Stolen", "rebuilt from the protected model's answers"),
        "removed": KindText("Removal tried", "the protected model's weights, changed to lose the marks"),
        "independent": KindText("Independent", "trained without the key: the controls"),
        "unknown": KindText("Unknown", "of unknown making"),
    }
)
"""Headings where all suspects are of one owner."""

GRID_KINDS: Mapping[Kind, KindText] = MappingProxyType(
    {
        "protected": KindText("Owner", "the owner's model, before anybody touched it"),
        "stolen": KindText("Stolen", "rebuilt from the owner's answers"),
        "removed": KindText("Removal tried", "the owner's weights, changed to lose the marks"),
        "independent": KindText("Independent", "made without the key: the controls"),
        "unknown": KindText("Unknown", "of unknown making"),
    }
)
"""Headings in a grid, whose owners need not have marks."""

KIND_LEGEND: Mapping[Kind, str] = MappingProxyType(
    {
        "protected": "the owner's model",
        "stolen": "stolen",
        "removed": "removal tried",
        "independent": "independent: controls",
        "unknown": "of unknown making",
    }
)
"""Names of kinds in the legend of a plot."""


class Tally(NamedTuple):
    """How many suspects are key-dependent, of how many that were tested."""

    key_dependent: int
    tested: int

    def __str__(self) -> str:
        """Return '2 of 3', or 'none of 3'."""
        return f"{self.key_dependent or 'none'} of {self.tested}"


class Figure(NamedTuple):
    """A number at the top of a page, with its name and a note."""

    name: str
    value: str
    note: str


class EvidenceText(NamedTuple):
    """What the test of a mark measures, and the null distributions of it, for one access."""

    mark: str
    access: str
    texts: tuple[str, ...]


def kind_of(result: Result) -> Kind:
    """Return the kind of a result's suspect, `unknown` for a kind that this version does not know."""
    return result.kind if result.kind in KINDS else "unknown"


def describe_robust(robust: RobustRecord) -> str:
    """Return how a robust accuracy was measured."""
    return f"{robust.attack}, eps\u00a0{format_eps(robust.eps)}, n\u00a0{robust.n:,}"


def main_result(results: Sequence[Result]) -> Result:
    """Return the result that a page is mostly about: that of the protected model, if there is one."""
    return next((result for result in results if result.kind == "protected"), results[0])


def lead(results: Sequence[Result]) -> str:
    """Return the outcome over all suspects in a sentence."""
    untested = sum(result.verdict is None for result in results)
    if untested == len(results):
        return _NOT_TESTED
    owners = _tally(results, "protected")
    subject = "the protected model" if owners == (1, 1) else f"{owners} protected models"
    parts = [subject] if owners.tested else []
    copies = [(_tally(results, kind), noun) for kind, noun in (("stolen", "stolen"), ("removed", "altered"))]
    tested_copies = " and ".join(f"{count} {noun}" for count, noun in copies if count.tested)
    parts += [f"{tested_copies} copies"] if tested_copies else []
    for kind in ("independent", "unknown"):
        count = _tally(results, kind)
        parts += [f"{count} {kind} models"] if count.tested else []
    rest = f" {untested} of {len(results)} suspects were not tested." if untested else ""
    return f"The owner's key shows in {_enumerate(parts)}.{rest}"


def alerts(results: Sequence[Result]) -> tuple[str, ...]:
    """Return warnings about the results of one owner: key-dependent independent models, invalid claims."""
    messages = []
    if _tally(results, "independent").key_dependent:
        messages.append(
            "A control shows the key: something is wrong with this claim, and nothing here counts as proof."
        )
    return (*messages, *_invalid_claims(results))


def figures(findings: Findings) -> tuple[Figure, ...]:
    """Return the chief figures of a demo, a run or a list of results; what is not known is left out."""
    results = findings.results
    subjects = [result for result in results if result.kind == "protected" or findings.source == "run"]
    shown = _accuracies(subjects) if len({result.data for result in subjects}) == 1 else []
    copies, independents = _tally(results, "stolen", "removed"), _tally(results, "independent")
    if copies.tested:
        value = f"{copies.key_dependent} of {copies.tested}"
        shown.append(Figure("Copies that show the key", value, "stolen or altered"))
    if independents.tested:
        value = f"{independents.key_dependent} of {independents.tested}"
        shown.append(Figure("Controls that show it", value, "independent models; should be 0"))
    note = {"demo": "the whole demo", "grid": "all cells together", "run": "wall time"}[findings.source]
    return (*shown, Figure("Time", duration(findings.seconds), note))


def commands(findings: Findings) -> tuple[str, ...]:
    """Return the commands that compute these records again."""
    results = findings.results
    first = results[0]
    data, name = shlex.quote(first.data), shlex.quote(first.suspect)
    if findings.source == "grid":
        return _GRID_COMMANDS
    if findings.source == "run":
        return (*_run_commands(first, data), "wootz evaluate RUN", "wootz report RUN")
    suspect = next((shlex.quote(result.suspect) for result in results if result.kind in ("stolen", "removed")), name)
    return (
        f"wootz demo --data {data} --seed {first.seed} --out DIR",
        f"wootz verify DIR/{name} DIR/{suspect}",
        "wootz report DIR",
    )


def grid_size(summary: GridSummary) -> str:
    """Return the size of a grid in one line."""
    thefts = {row.theft for data in summary.data for row in data.kinds} - {OWNER_MODEL, INDEPENDENT}
    seeds = {result.seed for result in summary.results}
    counts = (
        (len(summary.data), "data set"),
        (len(summary.names), "defence"),
        (len(thefts), "theft"),
        (len(seeds), "seed"),
        (len(summary.results), "cell"),
    )
    runs = max(data.runs for data in summary.data)
    size = ", ".join(f"{count:,} {noun}" + "s" * (count != 1) for count, noun in counts)
    return f"{size} of {runs} runs" if runs > 1 else size


def grid_lead(summary: GridSummary) -> str:
    """Return the outcome over all tested results of a grid in a sentence."""
    tested = [result for result in summary.results if result.verdict is not None]
    return lead(tested) if tested else _NOT_TESTED


def grid_alerts(summary: GridSummary) -> tuple[str, ...]:
    """Return warnings about a grid: independent models at the threshold, invalid claims, failures."""
    messages = []
    independents = [result for result in summary.results if is_independent(result)]
    high = sorted(filter(reaches_threshold, independents), key=lambda result: -(result.bits or 0.0))
    if high:
        named = "; ".join(
            f"{result.axes['data']}, {summary.names[defence_of(result)]}, seed {result.seed}, "
            f"{result.suspect}: {result.bits:.1f} bits"
            for result in high[:_MAX_NAMED]
        )
        more = f"; and {len(high) - _MAX_NAMED} more" if len(high) > _MAX_NAMED else ""
        messages.append(
            f"{len(high)} of {len(independents)} controls reach the bar: something is wrong with these claims, and "
            f"nothing here counts as proof ({named}{more})."
        )
    messages += _invalid_claims(summary.results)
    failed = len(summary.failed)
    if failed:
        messages.append(
            f"Failed cells: {failed:,} of {len(summary.results):,}. They are listed below with their errors."
        )
    return tuple(messages)


def grid_figures(summary: GridSummary, metadata: GridMetadata) -> tuple[Figure, ...]:
    """Return the chief figures of a grid; what is not known is left out."""
    shown = []
    kinds: tuple[tuple[Kind, str], ...] = (("stolen", "Stolen: the key shows"), ("removed", "Altered: it shows"))
    for kind, name in kinds:
        counts = [count_surviving(data, defence, kind) for data in summary.data for defence in data.defences]
        surviving, tested = (sum(column) for column in zip(*counts, strict=True))
        if tested:
            shown.append(Figure(name, f"{surviving} of {tested}", "theft and defence, mean over seeds"))
    bits = [result.bits for result in summary.results if is_independent(result) and result.bits is not None]
    if bits:
        note = f"of {len(bits):,} tests; should stay below the bar"
        shown.append(Figure("Highest control", f"{max(bits):,.1f} bits", note))
    if summary.failed:
        shown.append(Figure("Failed cells", f"{len(summary.failed):,}", f"of {len(summary.results):,}"))
    job_seconds = metadata.job_seconds
    if job_seconds is None:
        job_seconds = sum(result.seconds for result in summary.results)
    if metadata.seconds is not None:
        note = f"wall time; {duration(job_seconds)} of work"
        return (*shown, Figure("Time", duration(metadata.seconds), note))
    return (*shown, Figure("Time", duration(job_seconds), "all cells together"))


def grid_commands(metadata: GridMetadata) -> tuple[str, ...]:
    """Return the commands that compute a grid and its report again."""
    bench, report = _GRID_COMMANDS
    return (metadata.command or bench, report)


def evidence_texts(results: Sequence[Result]) -> tuple[EvidenceText, ...]:
    """Return what the tests of each mark measure, as the records say it, for each access.

    Records that say neither what they measure nor its null distribution are left out. One mark may have several tests
    for an access, for example with and without sequential testing; each distinct text is given once.
    """
    texts: dict[tuple[str, str], dict[str, None]] = {}
    for result in results:
        for item in result.evidence:
            parts = (("Statistic", item.measure), ("Null distribution", item.null))
            text = " ".join(f"{name}: {value.rstrip('.')}." for name, value in parts if value)
            if text:
                texts.setdefault((item.mark, result.access or ""), {})[text] = None
    return tuple(EvidenceText(mark, access, tuple(distinct)) for (mark, access), distinct in texts.items())


def _tally(results: Sequence[Result], *kinds: str) -> Tally:
    """Count suspects of these kinds by outcome; untested ones do not count."""
    outcomes = [result.verdict for result in results if result.verdict is not None and kind_of(result) in kinds]
    return Tally(outcomes.count(Outcome.KEY_DEPENDENT), len(outcomes))


def _invalid_claims(results: Sequence[Result]) -> tuple[str, ...]:
    invalid = sum(result.verdict == Outcome.INVALID_CLAIM for result in results)
    return (f"Invalid claims: {invalid}. An independent panel model reaches the bar itself.",) if invalid else ()


def _accuracies(results: Sequence[Result]) -> list[Figure]:
    """Return clean and robust accuracy of one model, or the mean and the range of several."""
    subject = "the protected model" if results[0].kind == "protected" else results[0].suspect
    clean = [result.clean for result in results if result.clean is not None]
    robust = [result.robust for result in results if result.robust is not None]
    attacks = {describe_robust(record) for record in robust}
    shown = [_mean_figure("Clean accuracy", clean, subject)] if clean else []
    if len(attacks) == 1:
        shown.append(_mean_figure("Robust accuracy", [record.accuracy for record in robust], *attacks))
    return shown


def _mean_figure(name: str, values: Sequence[float], note: str) -> Figure:
    if len(values) == 1:
        return Figure(name, percent(values[0]), note)
    spread = f"mean of {len(values)} models, {percent(min(values))} to {percent(max(values))}"
    return Figure(name, percent(sum(values) / len(values)), spread)


def _run_commands(result: Result, data: str) -> tuple[str, ...]:
    if result.kind in ("stolen", "removed") and result.theft is not None:
        verb = "steal" if result.kind == "stolen" else "remove"
        attack = f"wootz {verb} OWNER --attack {shlex.quote(result.theft)} --seed {result.seed} --out RUN"
        return (attack, "wootz verify OWNER RUN")
    protect = f"wootz protect --data {data} --seed {result.seed} --out RUN"
    if result.kind == "protected":
        return (protect, "wootz verify RUN SUSPECT")
    return (f"{protect} --marks none", "wootz verify OWNER RUN")


def _enumerate(parts: Sequence[str]) -> str:
    """Join parts of a sentence: 'a', 'a and in b', 'a, in b, and in c'."""
    if len(parts) < 3:
        return " and in ".join(parts)
    return ", in ".join(parts[:-1]) + f", and in {parts[-1]}"
