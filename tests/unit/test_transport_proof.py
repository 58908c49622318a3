"""The proof's launch as a value, and what is read back from its run directory."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from facts_of import ETHERNET

from hpctrain.bench.transport import prove, worker
from hpctrain.bench.transport.prove import (
    find_silent_ranks,
    find_transport,
    plan_transport_trial,
    prove_transport,
    read_reports,
)
from hpctrain.config import load_config
from hpctrain.config.schema import CommConfig, Config, LaunchConfig
from hpctrain.errors import BenchError, LaunchError
from hpctrain.hosts import parse_host_list, render_hostfile
from hpctrain.launch.plan import plan_launch
from hpctrain.launch.prepare import Asked, Prepared, prepare_request
from hpctrain.launch.request import LaunchRequest

OFF_HOST_TCP = ["  on-host:  all connections are sm", "  off-host: all connections are tcp"]
OVER_IB = "h:1:1 [0] NCCL INFO Channel 00/0 : 0[0] -> 1[0] [send] via NET/IB/0"


def prepared(*, is_trainer=True, **config):
    launch = LaunchConfig(
        env={"A": "1"}, require_transport="ib", spares=1, min_np=64, max_restarts=3, np=64,
        hosts="hostfile",
    )  # fmt: skip
    config = Config(launch=launch, **config)
    request = LaunchRequest(
        ("train",), hosts=parse_host_list(ETHERNET.hosts).hosts, launch=config.launch,
        ssh_configs=("/x/ssh_config",), environ={"PATH": "/bin"},
    )  # fmt: skip
    made = Prepared(request, config, Path("runs/r"), False, is_trainer, ())
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
        "hpctrain.bench.transport.worker", "--device", "auto", "--by", "horovod",
    )  # fmt: skip
    config = load_config(Path(trial.config_name), trial.overrides)
    assert config.launch == LaunchConfig(env={"A": "1"})


def test_spares_are_no_reason_to_prove_nothing(tmp_path):
    """Two hosts and a spare: the proof's two would be one and a spare, or none and two."""
    trial = plan_transport_trial(tmp_path, *prepared())
    hostfile = tmp_path / "hostfile"
    hostfile.write_text(render_hostfile(trial.hosts))
    again = prepare_request(
        Asked(
            program=("true",), np=trial.np, hosts_file=hostfile, config_name=trial.config_name,
            overrides=trial.overrides,
        ),
        {"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert [host.name for host in again.request.hosts] == ["n1", "n2"]
    assert again.request.spares == ()


def found_in(run_path, hosts):
    return find_transport(read_reports(run_path), hosts)


def test_ddp_on_cpus_is_gloo_s(tmp_path):
    trial = plan_transport_trial(tmp_path, *prepared(comm=CommConfig(backend="ddp")))
    assert trial.program[-1] == "gloo"
    report(tmp_path, 0, "gloo", [])
    assert found_in(tmp_path, hosts=2).between == ("socket",)
    assert found_in(tmp_path, hosts=1).between == ()


def test_what_every_rank_said_counts(tmp_path):
    report(tmp_path, 0, "Open MPI v5.0.11", OFF_HOST_TCP)
    report(tmp_path, 1, "Open MPI v5.0.11", [])
    assert found_in(tmp_path, hosts=2).between == ("socket",)
    assert found_in(tmp_path / "none", hosts=2) is None
    socket = "h:1:1 [0] NCCL INFO Channel 00/0 : 1[0] -> 0[0] [send] via NET/Socket/0"
    report(tmp_path, 0, "nccl", [OVER_IB])
    report(tmp_path, 1, "nccl", [socket])
    assert found_in(tmp_path, hosts=2).between == ("ib", "socket")


def test_a_rank_that_says_nothing_of_nccl_s_channels_proves_nothing(tmp_path):
    report(tmp_path, 0, "nccl", [OVER_IB])
    assert "got no report of rank 1;" in find_silent_ranks(read_reports(tmp_path), np=2)
    report(tmp_path, 1, "nccl", ["NCCL version 2.21.5+cuda12.4"])
    said = find_silent_ranks(read_reports(tmp_path), np=2)
    assert "got no word of NCCL's transports of rank 1;" in said
    report(tmp_path, 1, "nccl", [OVER_IB])
    assert find_silent_ranks(read_reports(tmp_path), np=2) == ""
    # Of MPI rank 0 alone prints its summary.
    report(tmp_path, 0, "Open MPI v5.0.11", OFF_HOST_TCP)
    report(tmp_path, 1, "Open MPI v5.0.11", [])
    assert find_silent_ranks(read_reports(tmp_path), np=2) == ""
    assert "ranks 2, 3, 4, 5 and 4 more;" in find_silent_ranks(read_reports(tmp_path), np=10)


@pytest.mark.parametrize(
    ("by", "has_nccl", "exchanged"),
    [("mpi", False, "nccl"), ("horovod", True, "nccl"), ("horovod", False, "MPI")],
)
def test_on_gpus_a_horovod_without_nccl_is_proved_by_mpi(monkeypatch, by, has_nccl, exchanged):
    sent = []
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("PMI_SIZE", "1")
    monkeypatch.delenv("HPCTRAIN_SIZE", raising=False)
    monkeypatch.setattr(worker, "_has_gpu", lambda: True)
    monkeypatch.setattr(worker, "_horovod_has_nccl", lambda: has_nccl)
    monkeypatch.setattr(worker, "_exchange_by_nccl", lambda path, local_rank: "nccl")
    monkeypatch.setattr(worker, "_exchange_by_mpi", lambda path: "MPI")
    monkeypatch.setattr(worker, "emit", lambda event, **fields: sent.append(fields["library"]))
    assert worker.main(["--by", by]) == 0
    assert sent == [exchanged]


@pytest.mark.parametrize(("is_trainer", "by"), [(True, "horovod"), (False, "mpi")])
def test_only_of_the_trainer_it_is_known_what_it_exchanges_by(tmp_path, is_trainer, by):
    trial = plan_transport_trial(tmp_path, *prepared(is_trainer=is_trainer))
    assert trial.program[-1] == by


def proved(monkeypatch, expected, lines, silent=0):
    """Prove with a launch that reports these lines, but for its last ranks; return what is said,
    and the folder."""
    folders, said = [], []

    def run(trial):
        folders.append(trial.runs_dir)
        for rank in range(trial.np - silent):
            report(trial.run_path, rank, "Open MPI v5.0.11", [] if rank else lines)
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


def test_a_proof_that_is_not_whole_is_none(monkeypatch):
    problem, folder = proved(monkeypatch, "socket", OFF_HOST_TCP, silent=1)
    assert "got no report of rank 63; expected one of each of 64 ranks" in str(problem)
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
