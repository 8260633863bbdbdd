"""Tables as Markdown, CSV, LaTeX and HTML. Names are escaped, whatever they contain."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

from wootz.report.tables import Column, Entry, Table, TableRow, Value, split_columns
from wootz.report.text import GRID_KINDS
from wootz.types import Kind

_MARKDOWN_COLUMNS, _LATEX_COLUMNS, _LARGE_TYPE_COLUMNS = 8, 6, 4
"""Numbers of columns that fit beside each other in Markdown, on paper, and on paper in larger type."""

_DASH, _DAGGER = "\u2013", "\u2020"
_TEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "^": r"\textasciicircum{}",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "'": r"{\textquotesingle}",
    "`": r"{\textasciigrave}",
    _DASH: "--",
    _DAGGER: r"$^{\dagger}$",
    "[": "{[}",
    "]": "{]}",
}


class ValueText(NamedTuple):
    """The texts of a value.

    Attributes:
        main: The mean or the maximum.
        low: The minimum; None if no range is shown.
        high: The maximum; None if no range is shown.
        n: The number of values; None if it is the usual one.
        accuracies: Percent of keyed answers on used and on unused candidates of a baseline.
        reaches: Whether the main number reaches the threshold.
        seeds_differ: Whether some values reach the threshold and some do not.
    """

    main: str
    low: str | None
    high: str | None
    n: str | None
    accuracies: tuple[str, str] | None
    reaches: bool
    seeds_differ: bool


def value_text(value: Value) -> ValueText:
    """Return the texts of a value."""
    stats, is_mean = value.stats, value.statistic == "mean"

    def number(x: float) -> str:
        return f"{100 * x:.1f}" if value.unit == "percent" else f"{x:,.1f}"

    main = stats.mean if is_mean else stats.max
    ranged = is_mean and stats.min != stats.max
    pair = value.baseline_accuracy
    return ValueText(
        main=number(main),
        low=number(stats.min) if ranged else None,
        high=number(stats.max) if ranged else None,
        n=None if stats.n == value.usual_n else f"{stats.n}",
        accuracies=None if pair is None else (f"{100 * pair[0].mean:.1f}", f"{100 * pair[1].mean:.1f}"),
        reaches=value.threshold is not None and main >= value.threshold,
        seeds_differ=is_mean and 0 < stats.reaching < stats.n,
    )


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, split into several where it is wide."""
    blocks = [f"## {plain_markdown(table.title)}\n"]
    for part in split_columns(table, _MARKDOWN_COLUMNS):
        grouped = any(column.group for column in part.header)
        heads = [
            f"{plain_markdown(c.group)}: {plain_markdown(c.name)}" if grouped else plain_markdown(c.name)
            for c in part.header
        ]
        lines = [_md_row([*map(plain_markdown, part.stub), *heads])]
        lines.append(
            "|" + "---|" * len(part.stub) + "".join("---|" if column.is_text else "--:|" for column in part.header)
        )
        for kind, rows in _by_kind(part.rows):
            if kind:
                lines.append(_md_row([f"*{_kind_heading(kind)}*", *[""] * (len(part.stub) + len(part.header) - 1)]))
            lines += [_md_row([*map(plain_markdown, row.names), *map(_md_entry, row.entries)]) for row in rows]
        blocks.append("\n".join(lines) + "\n")
    if table.notes:
        blocks.append("\n".join(f"- {plain_markdown(note)}" for note in table.notes) + "\n")
    return "\n".join(blocks)


def to_csv(table: Table) -> str:
    """Return the table as CSV: each value in four columns, fractions and bits to six significant digits."""
    width = range(len(table.header))
    numeric = [any(isinstance(row.entries[i], Value) for row in table.rows) for i in width]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    heads = [_csv_heads(table.header[i].name, numeric[i]) for i in width]
    writer.writerow([*map(_plain, table.stub), *(name for names in heads for name in names)])
    for row in table.rows:
        entries = (text for i in width for text in _csv_entry(row.entries[i], numeric[i]))
        writer.writerow([*map(_plain, row.names), *entries])
    return file.getvalue()


def to_latex(table: Table) -> str:
    """Return the table as `table` environments for booktabs, split into several where it is wide.

    Ranges are sub- and superscripts. Letters outside Latin-1 are replaced by their code points.
    """
    blocks = []
    for part in split_columns(table, _LATEX_COLUMNS):
        has_text = any(column.is_text for column in part.header)
        size = r"\scriptsize" if has_text or len(part.header) > _LARGE_TYPE_COLUMNS else r"\footnotesize"
        spacing = r"\setlength{\tabcolsep}{3pt}\renewcommand{\arraystretch}{1.35}"
        lines = [r"\begin{table}", rf"\centering{size}{spacing}"]
        alignment = "l" * len(part.stub) + "".join("l" if column.is_text else "r" for column in part.header)
        alignment = alignment[:-1] + r"p{0.25\linewidth}" if has_text else alignment  # the last column may be long
        lines += [rf"\caption{{{_tex(part.title)}}}", rf"\begin{{tabular}}{{{alignment}}}", r"\toprule"]
        lines += _tex_groups(part)
        lines += [_tex_row([*map(_tex, part.stub), *(_tex(column.name) for column in part.header)]), r"\midrule"]
        for number, (kind, rows) in enumerate(_by_kind(part.rows)):
            lines += [r"\midrule"] if number else []
            if kind:
                span = len(part.stub) + len(part.header)
                lines.append(rf"\multicolumn{{{span}}}{{l}}{{\textit{{{_tex(_kind_heading(kind))}}}}} \\")
            lines += [_tex_row([*map(_tex, row.names), *map(_tex_entry, row.entries)]) for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        if part.notes:
            lines += ["", r"\smallskip\parbox{\linewidth}{\scriptsize " + _tex(" ".join(part.notes)) + "}"]
        blocks.append("\n".join([*lines, r"\end{table}"]) + "\n")
    return "\n".join(blocks)


def to_html(table: Table) -> Markup:
    """Return the table in an element that scrolls sideways where the table is wide."""
    heads = []
    if any(column.group for column in table.header):
        cells = [
            Markup('<th scope="colgroup" colspan="{}">{}</th>').format(len(list(columns)), name)
            for name, columns in groupby(column.group for column in table.header)
        ]
        corner = Markup('<td colspan="{}"></td>').format(len(table.stub))
        heads.append(Markup("<tr class=over>{}{}</tr>").format(corner, Markup().join(cells)))
    names = [*((name, True) for name in table.stub), *((column.name, column.is_text) for column in table.header)]
    singles = Markup().join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(" class=words") if is_text else "", name)
        for name, is_text in names
    )
    heads.append(Markup("<tr>{}</tr>").format(singles))
    bodies = [_html_body(table, kind, rows) for kind, rows in _by_kind(table.rows)]
    notes = Markup("<p class=fine>{}</p>").format(" ".join(table.notes)) if table.notes else Markup()
    return Markup(
        '<div class=scroll tabindex=0 role=region aria-label="{}">\n<table class=plain>\n<thead>{}</thead>\n{}</table>'
        "</div>\n{}\n"
    ).format(table.title, Markup().join(heads), Markup().join(bodies), notes)


def _by_kind(rows: Sequence[TableRow]) -> list[tuple[Kind | Literal[""], list[TableRow]]]:
    return [(kind, list(members)) for kind, members in groupby(rows, lambda row: row.kind)]


def _kind_heading(kind: Kind) -> str:
    title, meaning = GRID_KINDS[kind]
    return f"{title}: {meaning}"


def plain_markdown(text: str) -> str:
    """Return text on one line with everything escaped that is markup in Markdown or HTML."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", flat)


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md_entry(entry: Entry) -> str:
    if not isinstance(entry, Value):
        return _DASH if entry is None else plain_markdown(entry)
    value = value_text(entry)
    text = f"**{value.main}**" if value.reaches else value.main
    text += _DAGGER if value.seeds_differ else ""
    text += f" ({value.low}{_DASH}{value.high})" if value.low is not None else ""
    text += f" \\[{value.accuracies[0]} : {value.accuracies[1]}\\]" if value.accuracies is not None else ""
    return text + (f", n {value.n}" if value.n is not None else "")


def _plain(text: str) -> str:
    """Return text on one line, with an apostrophe in front where a spreadsheet would read a formula."""
    flat = " ".join(text.split())
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@") else flat


def _csv_heads(name: str, numeric: bool) -> list[str]:
    flat = re.sub(r"[^0-9a-z.]+", "_", name.lower()).strip("_")
    return [f"{flat}_{end}" for end in ("mean", "min", "max", "n")] if numeric else [flat]


def _csv_entry(entry: Entry, numeric: bool) -> list[str]:
    if isinstance(entry, Value):
        stats = entry.stats
        return [*(f"{x:.6g}" for x in (stats.mean, stats.min, stats.max)), str(stats.n)]
    return [_plain(entry or ""), *["", "", "0"][: 3 * numeric]]


def _tex(text: str) -> str:
    hyphen = "{-}" if "--" in text else "-"  # two in a row would become a dash
    return "".join(hyphen if c == "-" else _tex_letter(c) for c in " ".join(text.split()))


def _tex_letter(character: str) -> str:
    """Return a letter in a form that pdfLaTeX sets without further packages."""
    if character in _TEX:
        return _TEX[character]
    supported = " " <= character <= "~" or "\u00c0" <= character <= "\u00ff"
    return character if supported else rf"\texttt{{U+{ord(character):04X}}}"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_groups(table: Table) -> list[str]:
    """Return the row of column groups and the rules below it; nothing if there are no groups."""
    if not any(column.group for column in table.header):
        return []
    cells, rules, column_number = [""] * len(table.stub), [], len(table.stub) + 1
    for name, columns in groupby(column.group for column in table.header):
        width = len(list(columns))
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{column_number}-{column_number + width - 1}}}")
        column_number += width
    return [_tex_row(cells), "".join(rules)]


def _tex_entry(entry: Entry) -> str:
    if not isinstance(entry, Value):
        return "--" if entry is None else _tex(entry)
    value = value_text(entry)
    low, high, main = (None if x is None else x.replace(",", "{,}") for x in (value.low, value.high, value.main))
    text = rf"\mathbf{{{main}}}" if value.reaches else f"{main}"
    text += rf"^{{{high}}}_{{{low}}}" if low is not None else ""
    text = f"${text}$" + (_TEX[_DAGGER] if value.seeds_differ else "")
    if value.accuracies is not None:
        text += rf" {{\scriptsize {{[}}{value.accuracies[0]}\,:\,{value.accuracies[1]}{{]}}}}"
    return text + (rf" {{\scriptsize n\,{value.n}}}" if value.n is not None else "")


def _html_body(table: Table, kind: Kind | Literal[""], rows: Sequence[TableRow]) -> Markup:
    heading = Markup()
    if kind:
        title, meaning = GRID_KINDS[kind]
        span = len(table.stub) + len(table.header)
        heading = Markup('<tr class=group><th scope="rowgroup" colspan="{}">{} <span>{}</span></th></tr>\n').format(
            span, title, meaning
        )
    lines = [
        Markup("<tr>{}{}</tr>\n").format(
            Markup().join(Markup('<th scope="row">{}</th>').format(name) for name in row.names),
            Markup().join(
                _html_entry(entry, column, alarm=kind == "independent")
                for entry, column in zip(row.entries, table.header, strict=True)
            ),
        )
        for row in rows
    ]
    return Markup('<tbody class="{}">\n{}{}</tbody>\n').format(kind or "rest", heading, Markup().join(lines))


def _html_entry(entry: Entry, column: Column, *, alarm: bool) -> Markup:
    if not isinstance(entry, Value):
        if entry is None:
            dash = Markup('<td class="{}"><span class=none title="not known">{}</span></td>')
            return dash.format("words" if column.is_text else "number", _DASH)
        return Markup('<td class="{}">{}</td>').format(
            "failed" if entry == "failed" else "words" if column.is_text else "number", entry
        )
    value = value_text(entry)
    main = Markup("<b>{}</b>").format(value.main) if value.reaches else escape(value.main)
    small = [f"{value.low}{_DASH}{value.high}"] if value.low is not None else []
    small += [f"[{value.accuracies[0]} : {value.accuracies[1]}]"] if value.accuracies is not None else []
    small += [f"n {value.n}"] if value.n is not None else []
    below = Markup().join(Markup("<small>{}</small>").format(text) for text in small)
    first = Markup("{}{}").format(main, _DAGGER if value.seeds_differ else "")
    return Markup('<td class="{}">{}{}</td>').format("note" if alarm and value.reaches else "number", first, below)
