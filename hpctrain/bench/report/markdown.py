"""The report as Markdown: for a pull request, a wiki, a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from hpctrain.bench.report.result import Report
from hpctrain.bench.report.table import Table
from hpctrain.bench.report.tables import plan_tables, table_notes


def render_markdown(report: Report) -> str:
    """Return ``report.md``."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"# {report.title}"
    yield ""
    for paragraph in report.findings:
        yield from (paragraph, "")
    for warning in report.warnings:
        yield from (f"**Warning:** {warning}.", "")
    yield from ("| measured on | |", "|---|---|")
    for name, value in report.conditions:
        yield f"| {_cell(name)} | {_cell(value)} |"
    yield ""
    for table in plan_tables(report):
        yield from _table(table)
    remarks = list(table_notes(report))
    if remarks:
        yield from ("## Remarks", "", *(f"- {remark}" for remark in remarks))


def _table(table: Table) -> Iterator[str]:
    yield from (f"## {table.title}", "", table.note, "")
    yield f"| {' | '.join(_cell(column) for column in table.columns)} |"
    marks = ("---" if place < table.words else "---:" for place in range(len(table.columns)))
    yield f"|{'|'.join(marks)}|"
    for row in table.rows:
        yield f"| {' | '.join(_cell(value) for value in row)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
