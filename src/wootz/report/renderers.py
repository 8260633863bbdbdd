"""Tables as Markdown, CSV, LaTeX and HTML. Whatever a name contains, it stays a name."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup, escape

from wootz.report.survey import HEADINGS
from wootz.report.tables import Column, Entry, Row, Table, Value, panels

_COLUMNS, _PAPER, _ROOMY = 8, 6, 4
"""Columns that fit beside each other in plain text, on paper, and on paper in larger type."""

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


class Parts(NamedTuple):
    """A value in pieces, ready to be put together."""

    head: str
    low: str | None
    high: str | None
    n: str | None
    right: tuple[str, str] | None
    strong: bool
    some: bool


def parts(value: Value) -> Parts:
    """Return what is shown of a value."""
    found = value.spread

    def number(x: float) -> str:
        return f"{100 * x:.1f}" if value.unit == "percent" else f"{x:,.1f}"

    chief = found.mean if value.head == "mean" else found.most
    ranged = value.head == "mean" and found.least != found.most
    taught = None if value.right is None else (f"{100 * value.right[0].mean:.1f}", f"{100 * value.right[1].mean:.1f}")
    return Parts(
        head=number(chief),
        low=number(found.least) if ranged else None,
        high=number(found.most) if ranged else None,
        n=None if found.n == value.usual else f"{found.n}",
        right=taught,
        strong=value.bar is not None and chief >= value.bar,
        some=value.head == "mean" and 0 < found.reaching < found.n,
    )


def to_markdown(table: Table) -> str:
    """Return the table in GitHub's Markdown, cut into panels where it is wide."""
    blocks = [f"## {plain_markdown(table.title)}\n"]
    for panel in panels(table, _COLUMNS):
        grouped = any(column.group for column in panel.header)
        heads = [
            f"{plain_markdown(c.group)}: {plain_markdown(c.name)}" if grouped else plain_markdown(c.name)
            for c in panel.header
        ]
        lines = [_md_row([*map(plain_markdown, panel.stub), *heads])]
        lines.append(
            "|" + "---|" * len(panel.stub) + "".join("---|" if column.words else "--:|" for column in panel.header)
        )
        for kind, rows in _by_kind(panel.rows):
            if kind:
                lines.append(_md_row([f"*{_kind(kind)}*", *[""] * (len(panel.stub) + len(panel.header) - 1)]))
            lines += [_md_row([*map(plain_markdown, row.names), *map(_md_entry, row.entries)]) for row in rows]
        blocks.append("\n".join(lines) + "\n")
    if table.notes:
        blocks.append("\n".join(f"- {plain_markdown(note)}" for note in table.notes) + "\n")
    return "\n".join(blocks)


def to_csv(table: Table) -> str:
    """Return the table for machines: fractions and bits unrounded to six digits, a value in four columns."""
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
    """Return the table as `table` environments for booktabs, cut into panels where it is wide.

    The range stands as sub- and superscript. Letters beyond Latin are named by their code points.
    """
    blocks = []
    for panel in panels(table, _PAPER):
        words = any(column.words for column in panel.header)
        size = r"\scriptsize" if words or len(panel.header) > _ROOMY else r"\footnotesize"
        room = r"\setlength{\tabcolsep}{3pt}\renewcommand{\arraystretch}{1.35}"
        lines = [r"\begin{table}", rf"\centering{size}{room}"]
        text = "l" * len(panel.stub) + "".join("l" if column.words else "r" for column in panel.header)
        text = text[:-1] + r"p{0.25\linewidth}" if words else text  # what comes last may be long
        lines += [rf"\caption{{{_tex(panel.title)}}}", rf"\begin{{tabular}}{{{text}}}", r"\toprule"]
        lines += _tex_groups(panel)
        lines += [_tex_row([*map(_tex, panel.stub), *(_tex(column.name) for column in panel.header)]), r"\midrule"]
        for place, (kind, rows) in enumerate(_by_kind(panel.rows)):
            lines += [r"\midrule"] if place else []
            if kind:
                span = len(panel.stub) + len(panel.header)
                lines.append(rf"\multicolumn{{{span}}}{{l}}{{\textit{{{_tex(_kind(kind))}}}}} \\")
            lines += [_tex_row([*map(_tex, row.names), *map(_tex_entry, row.entries)]) for row in rows]
        lines += [r"\bottomrule", r"\end{tabular}"]
        if panel.notes:
            lines += ["", r"\smallskip\parbox{\linewidth}{\scriptsize " + _tex(" ".join(panel.notes)) + "}"]
        blocks.append("\n".join([*lines, r"\end{table}"]) + "\n")
    return "\n".join(blocks)


def to_html(table: Table) -> Markup:
    """Return the table as a figure that scrolls sideways where it is wide."""
    heads = []
    if any(column.group for column in table.header):
        cells = [
            Markup('<th scope="colgroup" colspan="{}">{}</th>').format(len(list(columns)), name)
            for name, columns in groupby(column.group for column in table.header)
        ]
        corner = Markup('<td colspan="{}"></td>').format(len(table.stub))
        heads.append(Markup("<tr class=over>{}{}</tr>").format(corner, Markup().join(cells)))
    names = [*((name, True) for name in table.stub), *((column.name, column.words) for column in table.header)]
    singles = Markup().join(
        Markup('<th scope="col"{}>{}</th>').format(Markup(" class=words") if words else "", name)
        for name, words in names
    )
    heads.append(Markup("<tr>{}</tr>").format(singles))
    bodies = [_html_body(table, kind, rows) for kind, rows in _by_kind(table.rows)]
    notes = Markup("<p class=fine>{}</p>").format(" ".join(table.notes)) if table.notes else Markup()
    return Markup(
        '<div class=scroll tabindex=0 role=region aria-label="{}">\n<table class=plain>\n<thead>{}</thead>\n{}</table>'
        "</div>\n{}\n"
    ).format(table.title, Markup().join(heads), Markup().join(bodies), notes)


RENDERERS: dict[str, Callable[[Table], str]] = {
    "md": to_markdown,
    "csv": to_csv,
    "tex": to_latex,
    "html": to_html,
}
"""Ending of a file -> what writes one table of it."""


def _by_kind(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(kind, list(found)) for kind, found in groupby(rows, lambda row: row.kind)]


def _kind(kind: str) -> str:
    title, meaning = HEADINGS[kind]
    return f"{title}: {meaning}"


def plain_markdown(text: str) -> str:
    """Return text as it is: what Markdown or HTML would read as more is escaped."""
    flat = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~$])", r"\\\1", flat)


def _md_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _md_entry(entry: Entry) -> str:
    if not isinstance(entry, Value):
        return _DASH if entry is None else plain_markdown(entry)
    found = parts(entry)
    text = f"**{found.head}**" if found.strong else found.head
    text += _DAGGER if found.some else ""
    text += f" ({found.low}{_DASH}{found.high})" if found.low is not None else ""
    text += f" \\[{found.right[0]} : {found.right[1]}\\]" if found.right is not None else ""
    return text + (f", n {found.n}" if found.n is not None else "")


def _plain(text: str) -> str:
    """Return text on one line that no spreadsheet takes for a formula."""
    flat = " ".join(text.split())
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@") else flat


def _csv_heads(name: str, numeric: bool) -> list[str]:
    flat = re.sub(r"[^0-9a-z.]+", "_", name.lower()).strip("_")
    return [f"{flat}_{end}" for end in ("mean", "min", "max", "n")] if numeric else [flat]


def _csv_entry(entry: Entry, numeric: bool) -> list[str]:
    if isinstance(entry, Value):
        found = entry.spread
        return [*(f"{x:.6g}" for x in (found.mean, found.least, found.most)), str(found.n)]
    return [_plain(entry or ""), *["", "", "0"][: 3 * numeric]]


def _tex(text: str) -> str:
    hyphen = "{-}" if "--" in text else "-"  # two in a row would become a dash
    return "".join(hyphen if c == "-" else _tex_letter(c) for c in " ".join(text.split()))


def _tex_letter(character: str) -> str:
    """Return a letter as pdfLaTeX can set it without further packages."""
    if character in _TEX:
        return _TEX[character]
    known = " " <= character <= "~" or "\u00c0" <= character <= "\u00ff"
    return character if known else rf"\texttt{{U+{ord(character):04X}}}"


def _tex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _tex_groups(table: Table) -> list[str]:
    """Return the row of groups and the rules below them, or nothing where there are none."""
    if not any(column.group for column in table.header):
        return []
    cells, rules, place = [""] * len(table.stub), [], len(table.stub) + 1
    for name, columns in groupby(column.group for column in table.header):
        width = len(list(columns))
        cells.append(rf"\multicolumn{{{width}}}{{c}}{{{_tex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
        place += width
    return [_tex_row(cells), "".join(rules)]


def _tex_entry(entry: Entry) -> str:
    if not isinstance(entry, Value):
        return "--" if entry is None else _tex(entry)
    found = parts(entry)
    low, high, head = (None if x is None else x.replace(",", "{,}") for x in (found.low, found.high, found.head))
    text = rf"\mathbf{{{head}}}" if found.strong else f"{head}"
    text += rf"^{{{high}}}_{{{low}}}" if low is not None else ""
    text = f"${text}$" + (_TEX[_DAGGER] if found.some else "")
    text += rf" {{\scriptsize {{[}}{found.right[0]}\,:\,{found.right[1]}{{]}}}}" if found.right is not None else ""
    return text + (rf" {{\scriptsize n\,{found.n}}}" if found.n is not None else "")


def _html_body(table: Table, kind: str, rows: Sequence[Row]) -> Markup:
    heading = Markup()
    if kind:
        title, meaning = HEADINGS[kind]
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
            return dash.format("words" if column.words else "number", _DASH)
        return Markup('<td class="{}">{}</td>').format(
            "failed" if entry == "failed" else "words" if column.words else "number", entry
        )
    found = parts(entry)
    head = Markup("<b>{}</b>").format(found.head) if found.strong else escape(found.head)
    small = [f"{found.low}{_DASH}{found.high}"] if found.low is not None else []
    small += [f"[{found.right[0]} : {found.right[1]}]"] if found.right is not None else []
    small += [f"n {found.n}"] if found.n is not None else []
    below = Markup().join(Markup("<small>{}</small>").format(text) for text in small)
    shown = Markup("{}{}").format(head, _DAGGER if found.some else "")
    return Markup('<td class="{}">{}{}</td>').format("note" if alarm and found.strong else "number", shown, below)
