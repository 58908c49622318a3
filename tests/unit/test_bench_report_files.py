"""The report's files: whole, self-contained, the same figures in each; and on the terminal."""

import dataclasses
import json
import re
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from bench_values import (
    PARTS,
    foreign_sample,
    make_allreduce,
    make_case,
    make_plan,
    make_sample,
    store,
    write_bench,
)
from click.testing import CliRunner

from hpctrain.bench.report import print_summary, read_report, write_report
from hpctrain.bench.report.tables import plan_tables
from hpctrain.cli import cli
from hpctrain.errors import BenchError

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")
VOID = {"meta", "link", "br", "img", "hr", "input"}
CASES = [make_case(1), make_case(2), make_case(4), make_case(4, nodes=2), make_case(1, "strong")]


class Page(HTMLParser):
    """Checks that elements close in their order, and collects what matters."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.tables, self.text = [], [], [], 0, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.tables += tag == "table"
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data"):
                self.references.append(value)
            if name in ("style", "clip-path", "fill"):
                self.references += re.findall(r"url\(([^)]*)\)", value)
            if name in ("aria-labelledby",):
                self.references += [f"#{one}" for one in value.split()]

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    stored = [
        store(case, make_sample(case, _parts(case), noise=0.02, seed=10 * k + n), k)
        for k in range(3)
        for n, case in enumerate(CASES)
    ]
    allreduces = {
        case.placement: make_allreduce(case.np, case.nodes) for case in CASES if case.np > 1
    }
    folder = write_bench(tmp_path_factory.mktemp("bench"), make_plan(CASES), stored, allreduces)
    write_report(folder)
    return folder


def _parts(case):
    return PARTS | {"exposed_comm": 0.05 * (case.np - 1) * case.nodes}


def test_the_page_needs_nothing_from_elsewhere(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "http" not in text
    assert not re.search(r"@import|<script|<link|<iframe|<img", text)
    assert page.references
    assert all(reference.startswith("#") for reference in page.references)
    assert len(page.ids) == len(set(page.ids))
    assert {reference[1:] for reference in page.references} <= set(page.ids)


def test_the_page_holds_every_table_every_case_and_four_plots(folder):
    report = read_report(folder)
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert page.tables == len(plan_tables(report)) + 1
    for case in CASES:
        assert case.key in page.text
    assert text.count("<svg") == 4
    assert text.count("</title>") == 5
    assert text.count("</desc>") == 4
    for key in ("rate", "efficiency", "steps", "bus"):
        assert f'aria-labelledby="{key}-title {key}-alt"' in text
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text
    assert "A CPU &lt;x&gt;" in text  # what a machine says of itself is text, never markup


def test_the_plots_have_no_color_of_their_own_in_the_page(folder):
    text = (folder / "report.html").read_text()
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    fixed = set(re.findall(r"(?<!, )#[0-9a-fA-F]{6}\b", drawn)) - {"#000000"}
    assert fixed == set()
    assert "var(--vermillion" in drawn
    assert '="var(' not in drawn


def test_the_same_figures_stand_in_every_file(folder):
    report = read_report(folder)
    record = json.loads((folder / "report.json").read_text())
    markdown = (folder / "report.md").read_text()
    page = Page((folder / "report.html").read_text())
    assert record["schema"] == 1
    assert [size["key"] for size in record["sizes"]] == [case.key for case in CASES]
    repeats = record["sizes"][0]["repeats"]
    assert [len(repeat["step_time_s"]) for repeat in repeats] == [8, 8, 8]
    for table in plan_tables(report):
        for row in table.rows:
            for value in row:
                assert value.replace("|", "\\|") in markdown
                assert value in page.text
    for finding in report.findings:
        assert finding in markdown
        assert finding in page.text


def rows_of(report, key):
    (table,) = [table for table in plan_tables(report) if table.key == key]
    return [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def test_the_fitted_link_of_each_placement_stands_in_the_report(folder):
    """The made-up all-reduces follow the formula to the letter: 100 µs, 1 GB/s, no residual."""
    report = read_report(folder)
    links = rows_of(report, "links")
    assert [link["placement"] for link in links] == ["np2-1node", "np4-1node", "np4-2nodes"]
    for link in links:
        assert (link["latency"], link["bandwidth, GB/s"]) == ("100 µs", "1")
        assert link["error"] == "0.0 %"
    record = json.loads((folder / "report.json").read_text())["links"]
    assert [bytes_ for bytes_, _ in record[0]["residuals"]] == [4096, 65536, 1 << 20, 16 << 20]
    assert record[2]["latency_s"] == pytest.approx(1e-4)
    assert "Links, as fitted" in (folder / "report.md").read_text()


def test_residuals_stand_beside_what_they_are_of(tmp_path):
    two = make_case(2)
    result = make_allreduce(2)
    slow = dataclasses.replace(result.points[1], repeats_s=(2 * result.points[1].median_s,) * 3)
    points = (result.points[0], slow, *result.points[2:])
    stored = [store(two, make_sample(two), k) for k in range(3)]
    allreduces = {two.placement: dataclasses.replace(result, points=points)}
    report = read_report(write_bench(tmp_path, make_plan([two]), stored, allreduces))
    (link,) = rows_of(report, "links")
    assert link["largest residual"].endswith("% at 64 KiB")
    residuals = [row["residual"] for row in rows_of(report, "bus")]
    assert residuals[1] == link["largest residual"].removesuffix(" at 64 KiB")
    assert residuals[1].startswith("-")
    assert len(set(residuals)) == 4


def test_rates_in_several_units_each_have_their_own(tmp_path, capsys):
    """Without tokens, weak scaling counts each rank's steps, strong scaling those of all."""
    cases = [make_case(np, mode, precision=None) for mode in ("weak", "strong") for np in (1, 2)]
    stored = [
        store(case, dataclasses.replace(make_sample(case), tokens_per_step=None), k)
        for case in cases
        for k in range(3)
    ]
    report = write_report(write_bench(tmp_path, make_plan(cases), stored))
    rates = [row["rate"] for row in rows_of(report, "sizes")]
    assert rates == ["2.86 rank-steps/s", "5.71 rank-steps/s", "2.86 steps/s", "2.86 steps/s"]
    assert rows_of(report, "raw")[-1]["rate"] == "2.86 steps/s"
    print_summary(report)
    assert "2.86 steps/s" in capsys.readouterr().out
    assert "weak, rank-steps/s" in Page((tmp_path / "report.html").read_text()).text


def test_what_rounding_leaves_is_nothing(tmp_path):
    """A tenth and two tenths are not three tenths in binary: that is no part of a step."""
    one = make_case(1)
    sample = dataclasses.replace(
        make_sample(one, PARTS | {"data": 0.1, "forward": 0.2, "backward": 0.0}),
        step_time_s=(0.3 + 0.04,) * 8,
    )
    report = read_report(write_bench(tmp_path, make_plan([one]), [store(one, sample)]))
    assert report.sizes[0].parts_s["other"] == 0.0
    assert [row["other"] for row in rows_of(report, "steps")] == ["0 s"]


def test_the_lost_points_in_the_file_add_up(folder):
    record = json.loads((folder / "report.json").read_text())
    losses = [size for size in record["sizes"] if size["lost_points"]]
    assert len(losses) == 3
    for size in losses:
        loss = 100 * (1 - size["efficiency"])
        assert sum(size["lost_points"].values()) == pytest.approx(loss)


def test_a_report_without_parts_has_two_plots(tmp_path):
    cases = [make_case(1, precision=None), make_case(2, precision=None)]
    stored = [
        store(case, foreign_sample(case.np), k, metric=(100.0 * case.np,))
        for case in cases
        for k in range(3)
    ]
    report = write_report(write_bench(tmp_path, make_plan(cases), stored))
    assert [table.key for table in plan_tables(report)] == ["sizes", "raw"]
    text = (tmp_path / "report.html").read_text()
    assert text.count("</desc>") == 2
    assert "unknown" in (tmp_path / "report.md").read_text()


def test_without_matplotlib_there_is_no_page_but_the_rest(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    report = write_report(folder)
    assert not (folder / "report.html").exists()
    assert any("pip install 'hpctrain[report]'" in warning for warning in report.warnings)
    monkeypatch.undo()
    write_report(folder)
    assert (folder / "report.html").exists()


def test_the_summary_fits_a_narrow_terminal(folder, capsys):
    from rich.console import Console

    print_summary(read_report(folder), Console(width=80, highlight=False, markup=False))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("weak, fp32, 4 ranks on 2 nodes" in line for line in lines)


def test_the_command_writes_the_report_again_and_its_plots(folder, tmp_path):
    (folder / "report.md").unlink()
    done = CliRunner().invoke(cli, ["bench", "report", str(folder), "--svg", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (folder / "report.md").exists()
    assert "Weak scaling, fp32, 4 ranks on 2 nodes" in done.output
    for key in ("rate", "efficiency", "steps", "bus"):
        plot = ElementTree.parse(tmp_path / f"{key}.svg").getroot()
        assert plot.get("role") == "img"
        assert "var(" not in (tmp_path / f"{key}.svg").read_text()
    as_json = CliRunner().invoke(cli, ["bench", "report", str(folder), "--json"])
    assert json.loads(as_json.output)["sizes"][0]["key"] == CASES[0].key


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(BenchError, match="no measurement"):
        write_report(tmp_path)
