"""``hpctrain run`` on hosts that do not see this machine's files: what is sent, what is run."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from hpctrain.clusters.cloud.access import NodeAccess
from hpctrain.clusters.cloud.node_setup import PYTHON
from hpctrain.clusters.cluster_dir import ClusterDirectory, ClusterRecord
from hpctrain.clusters.head_run import plan_head_command, run_on_head, working_folder
from hpctrain.clusters.overview import read_cluster
from hpctrain.clusters.sync import Project, find_project, send_project
from hpctrain.clusters.unfetched import HeadRun
from hpctrain.config import Config
from hpctrain.errors import ClusterError, PlanError
from hpctrain.executor import LocalExecutor
from hpctrain.launch.prepare import Asked, Prepared, default_run_name, read_config
from hpctrain.launch.ssh_config import render_ssh_config
from hpctrain.rundir import check_name


def find_outside_cluster(
    name: str | None, environ: Mapping[str, str]
) -> tuple[ClusterDirectory, ClusterRecord] | None:
    """Return a cluster whose network this machine is outside of; None for any other.

    Raises:
        ConfigError, ClusterError: there is none of this name, or it is not up.
    """
    if name is None:
        return None
    directory, record = read_cluster(name, environ, "--cluster")
    return None if record.reachable_from_here else (directory, record)


def refuse_outside(name: str | None, environ: Mapping[str, str], what: str) -> None:
    """Refuse to ask the hosts of a cluster whose network this machine is outside of.

    Args:
        what: is to be done on its head instead: "measure".

    Raises:
        PlanError: it is outside.
        ConfigError, ClusterError: as :func:`find_outside_cluster`.
    """
    if find_outside_cluster(name, environ) is not None:
        raise PlanError(
            f"--cluster: this machine is outside {name}'s network, got a head to go through; "
            f"expected hosts that can be reached from here. Log in and {what} there: hpctrain "
            f"cluster ssh --name {name}"
        )


def start_from_outside(
    found: tuple[ClusterDirectory, ClusterRecord], asked: Asked, *, dry_run: bool
) -> int:
    """Run on the cluster's head; return the run's exit code.

    Raises:
        PlanError: hosts are named twice, or the runs' folder cannot be on the nodes too.
        ClusterError: the cluster was never whole or goes away, and as
            :func:`hpctrain.clusters.head_run.run_on_head`.
    """
    directory, record = found
    if asked.hosts_file is not None or asked.host_list is not None:
        given = f"--hosts {asked.hosts_file}" if asked.hosts_file else f"-H {asked.host_list}"
        raise PlanError(
            f"--cluster: names the hosts already, got {given} as well; expected one of them."
        )
    if not directory.hostfile.exists() or record.state == "destroying":
        raise ClusterError(
            f"{directory.name}: no run can start there, got state {record.state}; expected up. "
            f"Finish it: hpctrain cluster up --provider {record.provider} --name {directory.name}"
        )
    if asked.runs_dir.is_absolute() or ".." in asked.runs_dir.parts:
        raise PlanError(
            f"--runs-dir: got {asked.runs_dir}; expected a folder below this one, for it is to be "
            "at the same place on the cluster."
        )
    named = replace(
        asked, name=asked.name or default_run_name(asked.program, asked.config_name, asked.runs_dir)
    )
    project = project_of(asked, read_config(asked))
    check_name(str(named.name))
    target = asked.runs_dir.absolute() / str(named.name)
    run = HeadRun(str(named.name), working_folder(project), str(asked.runs_dir), str(target))
    python = str(record.provider_data.get("python", PYTHON))
    arguments = forwarded_arguments(named)
    if dry_run:
        words = plan_head_command(python, arguments, ".hpctrain/hostfile")
        print(f"on {record.nodes[0].name}, in ~/{run.work}: {shlex.join(words)}")
        return 0
    return run_on_head(directory, record, project, run, arguments, python)


def forwarded_arguments(asked: Asked) -> list[str]:
    """Return the words of ``hpctrain run`` that mean the same on the head; pure.

    >>> forwarded_arguments(Asked(program=("python", "t.py"), np=4, name="r"))
    ['--name', 'r', '--runs-dir', 'runs', '--np', '4', '--', 'python', 't.py']
    """
    words = ["--name", str(asked.name), "--runs-dir", str(asked.runs_dir)]
    words += ["--np", str(asked.np)] if asked.np is not None else []
    words += ["--config", asked.config_name] if asked.config_name is not None else []
    words += [word for each in asked.overrides for word in ("--set", each)]
    words += ["--exclude-file", str(asked.exclude_file)] if asked.exclude_file else []
    flags = {"--resume": asked.resume, "--oversubscribe": asked.oversubscribe,
             "--save-signal": asked.save_signal, "--preflight": asked.preflight}  # fmt: skip
    words += [flag for flag, given in flags.items() if given]
    numbers = {"--max-restarts": asked.max_restarts, "--spares": asked.spares,
               "--min-np": asked.min_np}  # fmt: skip
    for option, value in numbers.items():
        words += [option, str(value)] if value is not None else []
    return [*words, "--", *asked.program] if asked.program else words


def project_of(asked: Asked, config: Config) -> Project:
    """Return what is sent: the git checkout, and files that the command or configuration names."""
    named = [Path(word) for word in words_with_files(asked.program)]
    paths = [asked.config_name, *(config.data.mixture or {config.data.path: 1.0})]
    paths += [str(asked.exclude_file)] if asked.exclude_file else []
    named += [Path(path) for path in paths if path]
    project = find_project(Path.cwd(), named, LocalExecutor())
    for path in project.outside:
        if not os.access(path, os.X_OK) or os.path.isdir(path):  # programs are there as well
            print(f"warning: {path} is outside {project.root} and is not sent", file=sys.stderr)
    return project


def words_with_files(program: Sequence[str]) -> list[str]:
    """Return the words of a command that may name files: none after -c, which is followed by code.

    >>> words_with_files(("python", "-u", "-c", "import os", "data"))
    ['python', '-u']
    """
    return list(itertools.takewhile(lambda word: word != "-c", program))


def sync_hosts(asked: Asked, prepared: Prepared) -> None:
    """Bring the project to the hosts of a hostfile, at the same place as here.

    Raises:
        PlanError: there are no other hosts.
        ClusterError: with each host that did not get it.
    """
    request = prepared.request
    hosts = [host for host in (*(request.hosts or ()), *request.spares) if not host.is_loopback]
    if not hosts:
        raise PlanError("--sync: there is no other host, expected --hosts or -H.")
    project = project_of(asked, prepared.config)
    text = render_ssh_config(hosts, request.ssh_configs)
    with tempfile.NamedTemporaryFile("w", prefix="hpctrain-ssh-", encoding="utf-8") as file:
        file.write(text)  # of its own: another run may send to other hosts at the same time
        file.flush()
        access = NodeAccess(Path(file.name), LocalExecutor())
        send_project(access, [host.name for host in hosts], project, str(project.root))
