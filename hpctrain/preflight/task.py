"""What a host is asked in a preflight, as a value that travels to it as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTask:
    """What one host is to look at; every probe gets the whole of it.

    Args:
        host: the host's name in the hostfile.
        ranks: how many ranks would run there.
        np: ranks in all.
        hosts: the hosts that this one tries to reach, with the addresses that are known of them;
            not all of them, for every host gets a task of its own.
        program: the COMMAND; empty for hpctrain's own trainer.
        config: the resolved configuration, as its TOML's tables; empty for a foreign COMMAND.
        run_path: the run's folder, absolute.
        cwd: where ranks start.
        subnet: the network (CIDR) that was chosen for MPI, if any.
        environ: variables that ranks get from the launcher.
        launcher: addresses of the launching machine.
        mpirun: the launcher that the configuration names, if any.
        is_spare: whether it takes its ranks only when another host has failed.
        probes: which probes to run.
        more: what single checks need besides, by the check's code.
    """

    host: str
    ranks: int = 1
    np: int = 1
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    program: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    run_path: str = ""
    cwd: str = "."
    subnet: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    mpirun: str | None = None
    is_spare: bool = False
    probes: tuple[str, ...] = ()
    more: Mapping[str, Any] = field(default_factory=dict)


def task_as_json(task: NodeTask) -> dict[str, Any]:
    """Return the task as JSON-ready values."""
    return asdict(task)


def task_from_json(value: Any) -> NodeTask:
    """Return the task that :func:`task_as_json` wrote.

    Raises:
        ValueError: it is none.
    """
    import msgspec

    return msgspec.convert(value, NodeTask)
