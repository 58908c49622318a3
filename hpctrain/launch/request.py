"""What a person asked for, as a value."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpctrain.config.schema import LaunchConfig
from hpctrain.hosts import Host


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """What a person asked for.

    Args:
        program: what each rank runs.
        hosts: None for this machine alone.
        spares: hosts that take no rank, but can be reached as the others.
        np: None for all slots.
        run_path: the run's folder, relative to the working directory where it lies below it.
        ssh_configs: files that ssh reads before the user's own, absolute.
        oversubscribe: allow more ranks than slots.
        saves_on_signal: whether the program saves and leaves on SIGUSR1.
        counts_cores: whether ranks stay on the CPU, so that GPUs are no slots.
        rank_env: variables for every rank on top of the configuration's.
        environ: this shell's variables.
    """

    program: tuple[str, ...]
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    hosts: tuple[Host, ...] | None = None
    spares: tuple[Host, ...] = ()
    np: int | None = None
    run_path: str = "runs/run"
    ssh_configs: tuple[str, ...] = ()
    oversubscribe: bool = False
    counts_cores: bool = False
    saves_on_signal: bool = False
    rank_env: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    python: str = sys.executable
    python_options: tuple[str, ...] = ()
