"""The command line of ``hpctrain tune``, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneAsked:
    """The command line of ``hpctrain tune``."""

    folder: Path
    np: int | None = None
    hosts_file: Path | None = None
    host_list: str | None = None
    cluster: str | None = None
    config_name: str | None = None
    overrides: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    budget: str = "10m"
    out: Path = Path("tuned.toml")
    seed: int = 0
    allow_lossy: bool = False
    oversubscribe: bool = False
    probe: bool = False
    force: bool = False

    @property
    def names_a_job(self) -> bool:
        """Whether it says what to tune, and not only where to go on."""
        words = (self.np, self.hosts_file, self.host_list, self.cluster, self.config_name)
        return any(word is not None for word in words) or bool(self.overrides or self.only)
