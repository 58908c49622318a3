"""``hpctrain bench`` on the command line: prices, clusters that are elsewhere, completion."""

import pytest

from hpctrain.bench.scaling.price import cluster_price
from hpctrain.cli import main
from hpctrain.clusters.cluster_dir import (
    ClusterDirectory,
    ClusterNode,
    ClusterRecord,
    clusters_folder,
)

OPTIONS = {"ssh_from_cidrs": "198.51.100.7/32", "machine_type": "p4d.24xlarge"}


def record(provider="aws", **provider_data):
    nodes = tuple(ClusterNode(f"demo-{i}", f"10.0.0.{i}", 8) for i in (1, 2))
    return ClusterRecord("demo", provider, 0.0, "up", nodes, False, (), provider_data)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Run the command line in this process; return what it said, having started nothing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*words):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(SystemExit) as ended:
            main(["bench", *words])
        assert ended.value.code == 2
        assert sorted(tmp_path.rglob("*")) == before
        return capsys.readouterr().err

    return run


def test_what_a_cloud_cluster_costs():
    price = cluster_price(record(options=OPTIONS, nodes=2))
    assert price["value"] > 2 * 21  # two machines' list price, and their disks
    assert price["what"].startswith("2 x p4d.24xlarge on aws, list prices")
    assert price["as_of"]
    assert cluster_price(record(options={**OPTIONS, "machine_type": "x9"}, nodes=2)) is None
    assert cluster_price(record("lab")) is None


def test_a_cluster_elsewhere_is_measured_from_its_head(refused, tmp_path):
    directory = ClusterDirectory("demo", clusters_folder({"XDG_STATE_HOME": f"{tmp_path}/state"}))
    with directory.locked():
        directory.write(record(options=OPTIONS, nodes=2))
        directory.write_text("ssh_config", "")
    said = refused("--np", "1,2", "--cluster", "demo")
    assert "outside the network of demo" in said
    assert "hpctrain cluster ssh --name demo" in said
    assert "hpctrain bench --hosts .hpctrain/hostfile --usd-per-hour" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--np", "1,x"], "--np: no numbers of ranks, got '1,x'"),
        (["--np", "1", "--metric", "(a)"], "--metric: is read from a COMMAND's output"),
        (["--np", "1", "--precision", "fp31"], "--precision: unknown value, got 'fp31'"),
        (["--np", "1", "--metric", "(", "--", "true"], "--metric: no regular expression"),
        (["--np", "1", "--name", "a", "--out", "b"], "--out and --name are both given"),
        (["--np", "1", "--name", "../a", "--", "true"], "../a"),
        (["--np", "1", "--usd-per-hour", "nan"], "'--usd-per-hour': no number, got nan"),
        (["--np", "1", "--usd-per-hour", "inf"], "'--usd-per-hour': no number, got inf"),
        (["--np", "1", "--timeout", "nan"], "'--timeout': no number, got nan"),
        (["--np", "1", "--mode", "odd"], "Invalid value for '--mode'"),
    ],
)
def test_what_is_refused(refused, words, said):
    assert said in refused(*words)
