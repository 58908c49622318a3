"""What a person typed → a launch request and the facts to plan it with.

This is where files are read and this machine is asked; what comes out is plain values.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.config import Config, as_tables, load_config
from hpctrain.errors import (
    HostfileError,
    PlanError,
    ProbeError,
    RunDirectoryError,
    raise_all,
)
from hpctrain.executor import LocalExecutor
from hpctrain.facts import Facts, HostFacts
from hpctrain.hosts import Host, HostList, parse_host_list, parse_hostfile
from hpctrain.launch.crew import split_spares
from hpctrain.launch.exclude import exclude_hosts
from hpctrain.launch.find_mpi import MpiInstall, find_mpi
from hpctrain.launch.look_at_command import check_program, warn_of_stdin
from hpctrain.launch.rank_env import CONFIG_VARIABLE
from hpctrain.launch.request import LaunchRequest
from hpctrain.launch.ssh_config import parse_ssh_addresses, render_ssh_config
from hpctrain.probe import (
    facts_cache,
    probe_hosts,
    probe_this_host,
    read_cached_facts,
    resolve_addresses,
)
from hpctrain.recipes import find_recipe
from hpctrain.rundir import check_name

# -P keeps a random.py beside the user's scripts from standing in for Python's own.
SAFE_PATH = ("-P",) if sys.version_info >= (3, 11) else ()
TRAINER = (*SAFE_PATH, "-m", "hpctrain.train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line of ``hpctrain run``."""

    program: tuple[str, ...] = ()
    np: int | None = None
    hosts_file: Path | None = None
    host_list: str | None = None
    cluster: str | None = None
    exclude_file: Path | None = None
    config_name: str | None = None
    overrides: tuple[str, ...] = ()
    name: str | None = None
    resume: bool = False
    runs_dir: Path = Path("runs")
    oversubscribe: bool = False
    save_signal: bool = False
    max_restarts: int | None = None
    spares: str | None = None
    min_np: int | None = None
    preflight: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with what belongs to it."""

    request: LaunchRequest
    config: Config
    run_path: Path
    resume: bool
    is_trainer: bool
    warnings: tuple[str, ...]


def prepare_request(asked: Asked, environ: Mapping[str, str]) -> Prepared:
    """Read configuration and hosts, and check what can be checked without asking a machine.

    Raises:
        ConfigError, HostfileError, PlanError, RunDirectoryError: as their pages say.
    """
    asked, resume_warnings = _resume_same_program(_with_cluster(asked, environ))
    is_trainer = not asked.program
    config = read_config(asked)
    errors: list[str] = []
    program_problems = [] if is_trainer else check_program(asked.program, environ)
    if asked.resume and asked.name is None:
        errors.append("--resume: which run, got no --name; expected one. See: hpctrain runs list")
    if asked.hosts_file is not None and asked.host_list is not None:
        errors.append("--hosts and -H are both given; expected one of them.")
    name = asked.name
    if name is None:
        name = default_run_name(asked.program, asked.config_name, asked.runs_dir)
    try:
        check_name(name)
    except RunDirectoryError as wrong:
        errors += wrong.messages
    host_list, ssh_configs = _read_hosts(asked, config, environ) if not errors else (None, ())
    if asked.exclude_file is not None and not errors:
        host_list = exclude_hosts(host_list, asked.exclude_file)
    elsewhere = host_list is not None and not any(host.is_loopback for host in host_list.hosts)
    if not elsewhere:  # what is missing here may be there on the hosts that run it
        errors += program_problems
    raise_all(PlanError, errors)
    hosts, spares = _split_spares(host_list, config)
    run_path = asked.runs_dir / name
    # Absolute: ranks on other hosts may start in another folder.
    rank_env = {"HPCTRAIN_RUN": name, "HPCTRAIN_RUN_PATH": str(run_path.absolute())}
    saves = asked.save_signal or (is_trainer and config.checkpoint.save == "on")
    if is_trainer:
        if saves:
            rank_env["HPCTRAIN_SAVE_SIGNAL"] = "held"  # until it listens, see launch/shim.py
        rank_env[CONFIG_VARIABLE] = json.dumps(as_tables(config), separators=(",", ":"))
    request = LaunchRequest(
        program=(sys.executable, *TRAINER) if is_trainer else asked.program,
        launch=config.launch,
        hosts=hosts,
        spares=spares,
        np=config.launch.np,
        run_path=str(run_path),
        ssh_configs=ssh_configs,
        oversubscribe=asked.oversubscribe,
        saves_on_signal=saves,
        counts_cores=is_trainer and config.train.device == "cpu",
        rank_env=rank_env,
        environ=dict(environ),
        python_options=SAFE_PATH,
    )
    warnings = list(host_list.warnings) if host_list else []
    if elsewhere:
        warnings += [f"{problem} (looked for on this machine)" for problem in program_problems]
    warnings += [*resume_warnings, *warn_of_stdin(), *_warn_of_idle_settings(config)]
    return Prepared(request, config, run_path, asked.resume, is_trainer, tuple(warnings))


def _split_spares(
    host_list: HostList | None, config: Config
) -> tuple[tuple[Host, ...] | None, tuple[Host, ...]]:
    """Return the hosts that take ranks (None for this machine alone), and those that wait.

    Raises:
        PlanError: the spares are no hosts of the list, or all of them.
    """
    spares = config.launch.spares
    if host_list is None:
        if spares:
            split_spares((), spares)  # raises
        return None, ()
    return split_spares(host_list.hosts, spares)


def _warn_of_idle_settings(config: Config) -> list[str]:
    """Say which settings of the restart loop do nothing, because nothing is restarted."""
    launch = config.launch
    given = {"launch.spares": launch.spares, "launch.min_np": launch.min_np}
    idle = [name for name, value in given.items() if value and not launch.max_restarts]
    return [f"{name} does nothing without --max-restarts" for name in idle]


def _with_cluster(asked: Asked, environ: Mapping[str, str]) -> Asked:
    """Take a cluster's hostfile; the ssh_config beside it is found as ever."""
    if asked.cluster is None:
        return asked
    if asked.hosts_file is not None or asked.host_list is not None:
        raise PlanError("--cluster is given with --hosts or -H; expected one of them.")
    from hpctrain.clusters.overview import find_cluster_hostfile

    return replace(asked, hosts_file=find_cluster_hostfile(asked.cluster, environ))


def _resume_same_program(asked: Asked) -> tuple[Asked, list[str]]:
    """Go on with the program that a resumed run ran, and say so where another one is given."""
    plan = asked.runs_dir / (asked.name or "") / "plan.json"
    if not asked.resume or not asked.name or not plan.is_file():
        return asked, []
    try:
        before = shlex.split(json.loads(plan.read_text(encoding="utf-8"))["program"])
    except (OSError, ValueError, KeyError, TypeError):
        return asked, []
    was_trainer = before[-2:] == list(TRAINER[-2:])
    if not asked.program:
        return asked if was_trainer else replace(asked, program=tuple(before)), []
    if was_trainer or list(asked.program) != before:
        return asked, [f"{asked.name} ran another program before: {shlex.join(before)}"]
    return asked, []


def read_config(asked: Asked) -> Config:
    """Return the configuration; a training that is resumed keeps its own where none is given."""
    recipe = None if asked.config_name is None else find_recipe(asked.config_name)
    overrides = asked.overrides
    own = asked.runs_dir / (asked.name or "") / "run.toml"
    if asked.resume and asked.name and not asked.program and recipe is None and own.is_file():
        # Where the first attempt began is no place to begin the second.
        recipe, overrides = own, ("checkpoint.resume=auto", *overrides)
    config = load_config(recipe, overrides)
    launch = replace(
        config.launch,
        np=asked.np or config.launch.np,
        hosts=str(asked.hosts_file) if asked.hosts_file else config.launch.hosts,
        min_np=asked.min_np or config.launch.min_np,
    )
    if asked.max_restarts is not None:
        launch = replace(launch, max_restarts=asked.max_restarts)
    if asked.spares is not None:
        launch = replace(launch, spares=parse_spares(asked.spares))
    return replace(config, launch=launch)


def parse_spares(text: str) -> int | tuple[str, ...]:
    """Return what ``--spares`` means: a count, or names as a host list has them.

    >>> parse_spares("2"), parse_spares("n7,n[08-09]")
    (2, ('n7', 'n08', 'n09'))

    Raises:
        HostfileError: neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    return tuple(host.name for host in parse_host_list(text, "--spares").hosts)


def gather_facts(prepared: Prepared, environ: Mapping[str, str], *, probe: bool = False) -> Facts:
    """Ask this machine, and other hosts only where `probe` says so.

    Raises:
        PlanError: no usable mpirun.
        ProbeError: a host that was to be asked did not answer.
    """
    request = prepared.request
    executor = LocalExecutor()
    mpi = find_mpi(environ, executor, given=prepared.config.launch.mpirun)
    known = (*(request.hosts or ()), *request.spares)
    hosts = [host for host in known if not host.is_loopback]
    launcher = probe_this_host(environ, executor, interfaces=bool(hosts))
    facts = Facts(
        launcher=launcher,
        mpi_flavour=mpi.flavour,
        mpi_version=mpi.version,
        mpirun=str(mpi.mpirun),
        mpi_source=mpi.source,
        addresses=_find_addresses(hosts, request.ssh_configs),
        has_ssh=_is_on_path("ssh", environ),
        mpi_has_ucx=_has_ucx(mpi, launcher) if hosts else False,
        now_s=time.time(),
    )
    remote = [host for host in hosts if not facts.is_launcher(host.name)]
    known = _probe_remote(remote, request) if probe else read_cached_facts(remote)
    return replace(facts, hosts=known)


def _find_addresses(hosts: list[Host], ssh_configs: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return hosts' addresses: from the ssh_config beside the hostfile, else by their names."""
    found: dict[str, str] = {}
    for path in ssh_configs:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
        found = {**parse_ssh_addresses(text, [host.name for host in hosts]), **found}
    others = resolve_addresses([host for host in hosts if host.name not in found])
    return {**others, **{name: (address,) for name, address in found.items()}}


def _has_ucx(mpi: MpiInstall, launcher: HostFacts) -> bool:
    """Say whether MPI can use the fabric; asked only where there is one."""
    from hpctrain.launch.mpi_build import probe_ucx

    is_open_mpi = mpi.flavour.startswith("openmpi")
    return is_open_mpi and bool(launcher.rdma_ports) and probe_ucx(mpi.mpirun)


def _is_on_path(program: str, environ: Mapping[str, str]) -> bool:
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    return any(os.access(os.path.join(folder, program), os.X_OK) for folder in folders)


def check_trainer(config: Config, facts: Facts) -> None:
    """Refuse a training run that every rank would only find out to be impossible.

    Raises:
        ConfigError: settings of the model do not go together.
        PlanError: Horovod is not installed, or was built for another MPI than mpirun's.
    """
    from importlib.util import find_spec

    from hpctrain.horovod_stamp import read_horovod_stamp
    from hpctrain.train.presets import resolve_model

    resolve_model(config.model)

    if config.comm.backend != "horovod":
        return
    if find_spec("horovod") is None:
        raise PlanError(
            "comm.backend: Horovod is not installed, got 'horovod'; expected it beside "
            f"{sys.executable}. Build it: hpctrain install-horovod, or train on one rank with "
            "--np 1 --set comm.backend=none"
        )
    stamp = read_horovod_stamp()
    if stamp is not None and stamp.mpi_flavour != facts.mpi_flavour:
        raise PlanError(
            f"mpirun: Horovod was built for another MPI, got {facts.mpi_flavour} "
            f"{facts.mpi_version} ({facts.mpirun}); expected {stamp.mpi_flavour} "
            f"{stamp.mpi_version}. Build it for this one: hpctrain install-horovod"
        )


def _probe_remote(remote: list[Host], request: LaunchRequest) -> Mapping[str, HostFacts]:
    # Kept, also after a failure: the error's hint names it.
    path = facts_cache() / "ssh_config"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f"ssh_config.{os.getpid()}")
        draft.write_text(render_ssh_config(remote, request.ssh_configs))
        draft.replace(path)
    except OSError as problem:
        raise ProbeError(
            f"{path}: cannot be written: {problem.strerror}; expected a cache folder of your "
            "own. Name one: XDG_CACHE_HOME=/some/folder"
        ) from problem
    return probe_hosts(remote, ("-F", str(path)), request.python)


def _read_hosts(
    asked: Asked, config: Config, environ: Mapping[str, str]
) -> tuple[HostList | None, tuple[str, ...]]:
    if asked.host_list is not None:
        return parse_host_list(asked.host_list), ()
    path = asked.hosts_file or (Path(config.launch.hosts) if config.launch.hosts else None)
    if path is None:
        return None, ()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "it is not UTF-8 text"
        raise HostfileError(f"{path}: cannot be read: {reason}. Check --hosts.") from problem
    # Resolved, because a generated hostfile is often reached through a link (./hostfile).
    beside = path.resolve().with_name("ssh_config")
    ssh_configs = (str(beside),) if beside.exists() else ()
    host_list = parse_hostfile(text, str(path))
    if environ.get("PBS_NODEFILE") and Path(environ["PBS_NODEFILE"]).resolve() == path.resolve():
        # PBS writes one line a rank: a host that stands once has one slot, not all its cores.
        once = tuple(Host(h.name, h.slots or 1, where=h.where) for h in host_list.hosts)
        host_list = HostList(once, host_list.warnings)
    return host_list, ssh_configs


def default_run_name(program: tuple[str, ...], config_name: str | None, runs_dir: Path) -> str:
    words = [Path(word).stem for word in program[:2] if not word.startswith("-")] or [
        Path(config_name).stem if config_name else "train"
    ]
    stem = words[-1] if words[0].startswith("python") else words[0]
    stem = "".join(c for c in stem if c.isascii() and (c.isalnum() or c in "._-")).strip("._-")
    # With a part of our PID: launches in the same second are told apart.
    base = f"{stem or 'run'}-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid() % 1000:03d}"
    taken = {path.name for path in runs_dir.glob(f"{base}*")}
    names = (base if count == 1 else f"{base}-{count}" for count in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)
