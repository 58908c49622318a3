"""``hpctrain bench report``: write a measurement's report again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from hpctrain.cli.bench_compare import bench_folder, complete_bench_folder


@click.command(
    epilog="""\b
Examples:
  hpctrain bench report benches/first                   report.json, report.md, report.html
  hpctrain bench report benches/first --svg plots       and each plot as a file
  hpctrain bench report benches/first --json | jq '.sizes[].efficiency'

\b
Exit codes: 0 done; 1 nothing is measured, or a figure is implausible; 2 usage.
"""
)
@click.argument("folder", metavar="DIR", type=bench_folder, shell_complete=complete_bench_folder)
@click.option(
    "--svg",
    "svg_folder",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each plot there, as an SVG file of its own.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(folder: Path, svg_folder: Path | None, as_json: bool) -> None:
    """Write the report of the measurement in DIR again, and print it in short."""
    from hpctrain.bench.report import print_summary, write_report
    from hpctrain.bench.report.write import report_files, write_plots

    report = write_report(folder)
    plots = write_plots(report, svg_folder) if svg_folder is not None else ()
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
        return
    print_summary(report)
    click.echo()
    for path in (*report_files(folder), *plots):
        click.echo(f"wrote {path}")
