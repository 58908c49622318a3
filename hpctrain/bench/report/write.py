"""Reads a bench directory and writes its report: the only place here that touches files."""

from __future__ import annotations

import json
from pathlib import Path

from hpctrain.bench.report.analyse import analyse_bench
from hpctrain.bench.report.markdown import render_markdown
from hpctrain.bench.report.result import Report
from hpctrain.bench.scaling.cases import read_bench
from hpctrain.errors import BenchError

JSON_FILE, MARKDOWN_FILE, PAGE_FILE = "report.json", "report.md", "report.html"
PAGE_NEEDS = "report.html needs matplotlib and jinja2: pip install 'hpctrain[report]'"


def read_report(folder: Path) -> Report:
    """Return the report of a bench directory; write nothing.

    Raises:
        BenchError: there is no measurement, or an implausible one.
    """
    return analyse_bench(folder, *read_bench(folder))


def write_report(folder: Path) -> Report:
    """Write ``report.json``, ``report.md`` and ``report.html``, each whole or not at all.

    Where matplotlib or jinja2 is missing there is no page, and the report's warnings say so.

    Raises:
        BenchError: there is no measurement, or an implausible one: then nothing is written, and
            an older report is removed.
    """
    try:
        report = read_report(folder)
    except BenchError:
        for name in (JSON_FILE, MARKDOWN_FILE, PAGE_FILE):
            (folder / name).unlink(missing_ok=True)
        raise
    try:
        from hpctrain.bench.report.page import render_page

        _write(folder / PAGE_FILE, render_page(report))
    except ImportError:
        (folder / PAGE_FILE).unlink(missing_ok=True)
        report = _with_warning(report, PAGE_NEEDS)
    _write(folder / MARKDOWN_FILE, render_markdown(report))
    _write(folder / JSON_FILE, json.dumps(report.as_json(), indent=1, allow_nan=False) + "\n")
    return report


def report_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of a report that are there."""
    paths = (folder / name for name in (PAGE_FILE, MARKDOWN_FILE, JSON_FILE))
    return tuple(path for path in paths if path.exists())


def write_plots(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write each plot as an SVG file of its own, and return them.

    Raises:
        BenchError: matplotlib is not installed.
    """
    try:
        from hpctrain.bench.report.plots import draw_plots

        plots = draw_plots(report, standalone=True)
    except ImportError as missing:
        raise BenchError(
            f"{folder}: no plots, got no {missing.name}; expected it to be installed. "
            "Install it: pip install 'hpctrain[report]'"
        ) from missing
    folder.mkdir(parents=True, exist_ok=True)
    for plot in plots:
        _write(folder / f"{plot.key}.svg", plot.svg + "\n")
    return tuple(folder / f"{plot.key}.svg" for plot in plots)


def _with_warning(report: Report, warning: str) -> Report:
    from dataclasses import replace

    return replace(report, warnings=(*report.warnings, warning))


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
