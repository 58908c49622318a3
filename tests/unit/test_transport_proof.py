"""The proof's launch as a value, and what is read back from its run directory."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from facts_of import ETHERNET

from hpctrain.bench.transport import prove
from hpctrain.bench.transport.prove import plan_transport_trial, prove_transport, read_found
from hpctrain.config import load_config
from hpctrain.config.schema import CommConfig, Config, LaunchConfig
from hpctrain.errors import BenchError, LaunchError
from hpctrain.hosts import parse_host_list
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.prepare import Prepared
from hpctrain.launch.request import LaunchRequest

OFF_HOST_TCP = ["  on-host:  all connections are sm", "  off-host: all connections are tcp"]


def prepared(**config):
    config = Config(launch=LaunchConfig(env={"A": "1"}, require_transport="ib"), **config)
    request = LaunchRequest(
        ("train",), hosts=parse_host_list(ETHERNET.hosts).hosts, launch=config.launch,
        ssh_configs=("/x/ssh_config",), environ={"PATH": "/bin"},
    )  # fmt: skip
    made = Prepared(request, config, Path("runs/r"), False, True, ())
    return made, plan_launch(request, ETHERNET.facts)


def report(run_path, rank, library, lines):
    """Write what a rank reported, where the launcher writes it."""
    path = run_path / ("events.jsonl" if rank == 0 else f"ranks/rank-{rank:05d}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    event = {"event": "transport_report", "rank": rank, "library": library, "lines": lines}
    path.write_text(json.dumps(event) + "\n{half a li")


def test_the_same_ranks_hosts_and_configuration_and_no_proof_of_the_proof(tmp_path):
    trial = plan_transport_trial(tmp_path, *prepared())
    assert (trial.np, [host.name for host in trial.hosts]) == (64, ["n1", "n2"])
    assert trial.ssh_config == Path("/x/ssh_config")
    assert trial.program[-5:] == (
        "hpctrain.bench.transport.worker", "--device", "auto", "--by", "mpi",
    )  # fmt: skip
    config = load_config(Path(trial.config_name), trial.overrides)
    assert config.launch.env == {"A": "1"}
    assert config.launch.require_transport == "none"


def test_ddp_on_cpus_is_gloo_s(tmp_path):
    trial = plan_transport_trial(tmp_path, *prepared(comm=CommConfig(backend="ddp")))
    assert trial.program[-1] == "gloo"
    report(tmp_path, 0, "gloo", [])
    assert read_found(tmp_path, hosts=2).between == ("socket",)
    assert read_found(tmp_path, hosts=1).between == ()


def test_what_every_rank_said_counts(tmp_path):
    report(tmp_path, 0, "Open MPI v5.0.11", OFF_HOST_TCP)
    report(tmp_path, 1, "Open MPI v5.0.11", [])
    assert read_found(tmp_path, hosts=2).between == ("socket",)
    assert read_found(tmp_path / "none", hosts=2) is None
    ib = "h:1:1 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via NET/IB/0"
    socket = "h:1:1 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [send] via NET/Socket/0"
    report(tmp_path, 0, "nccl", [ib])
    report(tmp_path, 1, "nccl", [socket])
    assert read_found(tmp_path, hosts=2).between == ("ib", "socket")


def proved(monkeypatch, expected, lines):
    """Prove with a launch that reports these lines; return what is said, and the folder."""
    folders, said = [], []

    def run(trial):
        folders.append(trial.runs_dir)
        report(trial.run_path, 0, "Open MPI v5.0.11", lines)
        return trial.run_path

    monkeypatch.setattr(prove, "run_trial", run)
    try:
        prove_transport(expected, *prepared(), said.append)
    except LaunchError as problem:
        return problem, folders[0]
    return said, folders[0]


def test_a_proof_that_passes_leaves_nothing_behind(monkeypatch):
    said, folder = proved(monkeypatch, "socket", OFF_HOST_TCP)
    assert "socket between hosts, shm within hosts, by Open MPI" in said[-1]
    assert not folder.exists()


def test_a_fall_back_names_found_and_expected_and_keeps_the_logs(monkeypatch):
    problem, folder = proved(monkeypatch, "ib", OFF_HOST_TCP)
    assert problem.exit_code == 1
    assert "a silent fall back, got socket between hosts by Open MPI; expected ib" in str(problem)
    assert "off-host: all connections are tcp" in str(problem)
    assert folder.exists()
    prove.remove_folder(folder)


def test_a_probe_that_fails_proves_nothing(monkeypatch):
    def run(trial):
        raise BenchError("rank 0 died")

    monkeypatch.setattr(prove, "run_trial", run)
    with pytest.raises(LaunchError, match=r"ib is not proved.*rank 0 died"):
        prove_transport("ib", *prepared(), lambda line: None)


def test_the_plan_says_that_it_will_be_proved():
    made, plan = prepared()
    told = {reason.setting: reason for reason in plan.reasons}
    assert told["launch.require_transport"].value == "ib"
    silent = plan_launch(replace(made.request, launch=LaunchConfig()), ETHERNET.facts)
    assert not any("require_transport" in reason.setting for reason in silent.reasons)
