"""The report as one HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from pathlib import Path

from hpctrain.bench.report.drawing import COLORS
from hpctrain.bench.report.plots import draw_plots
from hpctrain.bench.report.result import Report
from hpctrain.bench.report.tables import plan_tables, table_notes

TEMPLATE = Path(__file__).with_name("report.html.j2")
FOLDED = ("bus", "raw")


def render_page(report: Report) -> str:
    """Return ``report.html``.

    Raises:
        ImportError: matplotlib or jinja2 is not installed (``pip install 'hpctrain[report]'``).
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        report=report,
        tables=plan_tables(report),
        remarks=list(table_notes(report)),
        plots=draw_plots(report),
        colors=COLORS,
        folded=FOLDED,
    )
