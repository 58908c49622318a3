"""`hpctrain env explain` as a person calls it, on this machine."""

import json

import pytest
from click.testing import CliRunner

from hpctrain.cli import cli


@pytest.fixture
def explain(monkeypatch, tmp_path):
    """Call it with variables of one's own, and a home of one's own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(*arguments, env=None):
        return CliRunner().invoke(cli, ["env", "explain", *arguments], env=env)

    return call


def test_the_table_names_variable_value_and_who_set_it(explain, tmp_path):
    (tmp_path / ".nccl.conf").write_text("NCCL_DEBUG=WARN\n")
    done = explain(env={"NCCL_ALGO": "Ring"})
    assert done.exit_code == 0, done.output
    assert "NCCL_ALGO=Ring" in done.output
    assert "NCCL_DEBUG=WARN" in done.output
    assert ".nccl.conf" in done.output


def test_what_is_wrong_is_said_and_is_no_failure(explain):
    done = explain(env={"NCCL_TIMEOUT": "60", "NCCL_P2P_DISABLE": "1"})
    assert done.exit_code == 0
    assert "unknown: " in done.output
    assert "NCCL_TIMEOUT" in done.output
    assert "care: " in done.output


def test_as_json(explain):
    done = explain("--json", "--set", 'launch.env={NCCL_NET="Socket"}', env={"NCCL_IB_HCA": "x"})
    told = json.loads(done.stdout)
    (host,) = told["hosts"].values()
    variables = {variable["name"]: variable for variable in host["variables"]}
    assert variables["NCCL_NET"]["origin"] == "launch.env"
    assert [f["name"] for f in host["findings"] if f["kind"] == "conflict"] == ["NCCL_NET"]


def test_a_cluster_elsewhere_is_refused_with_the_way_in(explain, monkeypatch):
    from hpctrain.clusters import from_outside

    monkeypatch.setattr(from_outside, "find_outside_cluster", lambda name, environ: (name, None))
    done = explain("--cluster", "far")
    assert done.exit_code != 0
    assert "hpctrain cluster ssh --name far" in str(done.exception)


def test_a_configuration_that_is_wrong_is_a_usage_error(explain):
    done = explain("--set", "launch.no_such=1")
    assert done.exit_code != 0
