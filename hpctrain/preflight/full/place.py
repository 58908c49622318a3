"""Where a preflight starts ranks: a folder beside the run's own, of which nothing is left."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpctrain.bench.trial import Trial, config_for_trial
from hpctrain.config import Config, dump_toml
from hpctrain.executor import Command, LocalExecutor, SshExecutor, run_on_all
from hpctrain.hosts import Host
from hpctrain.launch.ssh_config import host_alias
from hpctrain.preflight.request import Request

PREFIX = ".preflight-"
CONFIG_FILE = "preflight.toml"
REMOVE_TIMEOUT_S = 30.0
LAST_LINES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A request whose launch can be planned, and a folder for what it starts.

    Args:
        folder: beside the run's folder, so on the same disk; absolute.
        on_step: called with what is under way has come to.
    """

    request: Request
    folder: Path
    on_step: Callable[[int], None] = lambda step: None

    @property
    def np(self) -> int:
        assert self.request.plan is not None
        return self.request.plan.np

    @property
    def config(self) -> Config:
        assert self.request.prepared is not None
        return self.request.prepared.config

    @property
    def is_training(self) -> bool:
        """Whether hpctrain's own trainer is what is going to run."""
        return any(task.config for task in self.request.tasks.values())

    @property
    def hosts(self) -> tuple[Host, ...] | None:
        """As they were asked for; None for this machine alone."""
        assert self.request.prepared is not None
        return self.request.prepared.request.hosts

    def put(self, trial: Trial, config: Config | None = None) -> Trial:
        """Return a trial with the launch's settings and hosts, in this folder.

        Args:
            config: what it is told in place of the run's own configuration.
        """
        assert self.request.prepared is not None
        request = self.request.prepared.request
        told = config_for_trial(config or self.config)
        path = self.folder / f"{trial.name}-{CONFIG_FILE}"
        path.write_text(dump_toml(told), encoding="utf-8")
        return replace(
            trial,
            runs_dir=self.folder,
            config_name=str(path),
            hosts=self.hosts if trial.hosts is None else trial.hosts,
            ssh_config=Path(request.ssh_configs[0]) if request.ssh_configs else None,
            # Slots of a training on CPUs are cores, those of another program perhaps GPUs.
            oversubscribe=request.oversubscribe or self.hosts is None,
        )


@contextmanager
def opened_place(request: Request, on_step: Callable[[int], None]) -> Iterator[Place]:
    """Make the folder for the length of a block.

    Raises:
        OSError: no folder can be made where the run's is going to be.
    """
    assert request.prepared is not None
    parent = request.prepared.run_path.absolute().parent
    made = [path for path in (parent, *parent.parents) if not path.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    folder.chmod(0o755)  # ranks of a root squashed by NFS must get in
    try:
        yield Place(request=request, folder=folder, on_step=on_step)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _remove_elsewhere(request, folder)
        for path in made:
            with suppress(OSError):  # somebody else has put something there meanwhile
                path.rmdir()


def _remove_elsewhere(request: Request, folder: Path) -> None:
    """Remove what rank 0 saved on a host that does not share our files."""
    hosts = [host for host in request.tasks if host not in request.local]
    first = request.plan.placement[0].host if request.plan else ""
    command = Command(("rm", "-rf", "--", os.fspath(folder)))

    def remove(host: str) -> None:
        ssh = SshExecutor(host_alias(host), request.ssh_options, LocalExecutor())
        ssh.run(command, timeout_s=REMOVE_TIMEOUT_S)

    run_on_all(remove, [host for host in hosts if host == first])


def explain_failure(problem: Exception, folder: Path) -> str:
    """Return in one line why a launch failed, without names in a folder that will be gone.

    >>> text = "/d/x: the run failed:\\n  ready\\n  failed: rank 1 on n2 failed first\\n  | no data"
    >>> explain_failure(RuntimeError(text), Path("/d"))
    'failed: rank 1 on n2 failed first; no data'
    """
    lines = [line.strip(" |") for line in str(problem).replace(f"{folder}/", "").splitlines()]
    telling = (i for i, line in enumerate(lines) if line.startswith(("failed:", "error:")))
    lines = [line for line in lines[next(telling, 0) :] if line and not line.startswith("log:")]
    if len(lines) > 1 + LAST_LINES:
        lines = [lines[0], "…", *lines[-LAST_LINES:]]
    return "; ".join(lines)
