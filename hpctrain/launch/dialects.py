"""How each MPI words an intent: one table per MPI, data only.

A template's ``{}`` takes the setting's value. An intent that a table lacks is one that this MPI
has no word for; the plan's reasons then say so. Every line was run on the versions named in
`docs/tuning.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpctrain.launch.rule import Setting


@dataclass(frozen=True, slots=True)
class Wording:
    """The words for one intent: flags, and variables for mpirun's own environment."""

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def fill(self, value: str) -> Wording:
        argv = tuple(word.replace("{}", value) for word in self.argv)
        return Wording(argv, {k: v.replace("{}", value) for k, v in self.env.items()})


@dataclass(frozen=True, slots=True)
class Dialect:
    """One MPI's words.

    Args:
        np: flag of the number of ranks.
        local_hosts: how ranks on this machine alone are placed; ``{}`` is their number.
        hostfile: flags of a hostfile; ``{}`` is its path.
        hostfile_line: one of its lines, from a name and a number of ranks.
        forward: flags that name one variable for all ranks, or (with `forward_joined`) all.
        intents: intent → words; no words at all where this MPI does it without being told.
        program: what to start, beside mpirun.
    """

    title: str
    np: str
    local_hosts: tuple[str, ...]
    hostfile: tuple[str, ...]
    hostfile_line: str
    forward: tuple[str, ...]
    forward_joined: bool
    intents: Mapping[str, Wording]
    program: str = "mpirun"


_OPEN_MPI_SYNTAX: dict[str, Any] = {
    "np": "--np",
    "local_hosts": ("--host", "localhost:{}"),
    "hostfile": ("--hostfile", "{}"),
    "hostfile_line": "{name} slots={ranks}",
    "forward": ("-x", "{}"),
    "forward_joined": False,
}
_OPEN_MPI_COMMON = {
    "bind_none": Wording(("--bind-to", "none", "--map-by", "slot")),
    "allow_root": Wording(("--allow-run-as-root",)),
    "yield_when_idle": Wording(("--mca", "mpi_yield_when_idle", "1")),
    "subnet": Wording(("--mca", "btl_tcp_if_include", "{}")),
    "ucx_transport": Wording(("--mca", "pml", "ucx")),
}

OPEN_MPI_4 = Dialect(
    title="Open MPI 4",
    **_OPEN_MPI_SYNTAX,
    intents={
        **_OPEN_MPI_COMMON,
        "tcp_transport": Wording(("--mca", "pml", "ob1", "--mca", "btl", "self,vader,tcp")),
        "control_subnet": Wording(("--mca", "oob_tcp_if_include", "{}")),
        "no_ssh": Wording(("--mca", "plm", "isolated")),
        "ssh_config": Wording(("--mca", "plm_rsh_agent", "ssh -F {}")),
        "keepalive": Wording(
            ("--mca", "oob_tcp_keepalive_time", "5", "--mca", "oob_tcp_keepalive_intvl", "2",
             "--mca", "oob_tcp_keepalive_probes", "3")
        ),
        "no_tree_launch": Wording(
            ("--mca", "plm_rsh_no_tree_spawn", "1", "--mca", "plm_rsh_num_concurrent", "{}")
        ),
    },
)  # fmt: skip

# Since version 5 the launcher is PRRTE, with settings of its own; it starts without ssh.
OPEN_MPI_5 = Dialect(
    title="Open MPI 5",
    **_OPEN_MPI_SYNTAX,
    intents={
        **_OPEN_MPI_COMMON,
        "tcp_transport": Wording(("--mca", "pml", "ob1", "--mca", "btl", "self,sm,tcp")),
        "control_subnet": Wording(("--prtemca", "prte_if_include", "{}")),
        "no_ssh": Wording(),
        "ssh_config": Wording(("--prtemca", "plm_ssh_agent", "ssh -F {}")),
        "keepalive": Wording(
            ("--prtemca", "oob_tcp_keepalive_time", "5",
             "--prtemca", "oob_tcp_keepalive_intvl", "2",
             "--prtemca", "oob_tcp_keepalive_probes", "3")
        ),
        "no_tree_launch": Wording(
            ("--prtemca", "plm_ssh_no_tree_spawn", "1",
             "--prtemca", "plm_ssh_num_concurrent", "{}")
        ),
    },
)  # fmt: skip

# Hydra starts as root, and without ssh on one machine, as it is.
_HYDRA_SYNTAX: dict[str, Any] = {
    "np": "-n",
    "hostfile_line": "{name}:{ranks}",
    "forward": ("-genvlist", "{}"),
    "forward_joined": True,
}
_HYDRA_COMMON = {"allow_root": Wording(), "no_ssh": Wording()}

MPICH = Dialect(
    title="MPICH",
    local_hosts=("-hosts", "localhost:{}"),
    hostfile=("-f", "{}"),
    **_HYDRA_SYNTAX,
    intents={
        **_HYDRA_COMMON,
        "bind_none": Wording(("-bind-to", "none")),
        "tcp_transport": Wording(env={"MPIR_CVAR_CH4_NETMOD": "ofi", "FI_PROVIDER": "tcp"}),
        "yield_when_idle": Wording(env={"MPIR_CVAR_ENABLE_HEAVY_YIELD": "1"}),
        "ssh_config": Wording(("-launcher", "ssh"), {"HYDRA_LAUNCHER_EXTRA_ARGS": "-F {}"}),
    },
)

# Its mpirun is a shell script that swallows signals, so mpiexec.hydra is started. It reads slot
# counts in -machinefile alone, and ignores -bind-to none.
INTEL_MPI = Dialect(
    title="Intel MPI",
    local_hosts=("-hosts", "localhost", "-ppn", "{}"),
    hostfile=("-machinefile", "{}"),
    **_HYDRA_SYNTAX,
    intents={
        **_HYDRA_COMMON,
        "bind_none": Wording(env={"I_MPI_PIN": "0"}),
        "tcp_transport": Wording(env={"FI_PROVIDER": "tcp"}),
        "yield_when_idle": Wording(env={"I_MPI_THREAD_YIELD": "2"}),
        "ssh_config": Wording(
            ("-bootstrap", "ssh"), {"I_MPI_HYDRA_BOOTSTRAP_EXEC_EXTRA_ARGS": "-F {}"}
        ),
    },
    program="mpiexec.hydra",
)

DIALECTS: Mapping[str, Dialect] = {
    "openmpi4": OPEN_MPI_4,
    "openmpi5": OPEN_MPI_5,
    "mpich": MPICH,
    "intelmpi": INTEL_MPI,
}


def render_forward(dialect: Dialect, names: Sequence[str]) -> tuple[str, ...]:
    """Return the flags that hand variables, by name alone, to ranks on other hosts.

    >>> render_forward(OPEN_MPI_4, ["PATH", "A"]), render_forward(MPICH, ["PATH", "A"])
    (('-x', 'PATH', '-x', 'A'), ('-genvlist', 'PATH,A'))
    """
    values = [",".join(names)] if dialect.forward_joined else names
    return tuple(word.replace("{}", value) for value in values for word in dialect.forward)


def render_setting(dialect: Dialect, setting: Setting) -> Wording | None:
    """Return a setting's words, or None where this MPI has none for it."""
    if setting.intent.startswith("env:"):
        return Wording(env={setting.intent.removeprefix("env:"): setting.value})
    wording = dialect.intents.get(setting.intent)
    return wording.fill(setting.value) if wording else None


def split_flags(argv: Sequence[str]) -> list[list[str]]:
    """Split words into flags with what belongs to each.

    >>> split_flags(("--mca", "pml", "ob1", "--allow-run-as-root", "-n", "2"))
    [['--mca', 'pml', 'ob1'], ['--allow-run-as-root'], ['-n', '2']]
    """
    flags: list[list[str]] = []
    for word in argv:
        if word.startswith("-") or not flags:
            flags.append([word])
        else:
            flags[-1].append(word)
    return flags


def flag_name_and_value(flag: Sequence[str]) -> tuple[str, str]:
    """Return what to call a flag, and its value.

    >>> flag_name_and_value(["--mca", "pml", "ob1"]), flag_name_and_value(["--allow-run-as-root"])
    (('--mca pml', 'ob1'), ('--allow-run-as-root', ''))
    """
    size = 2 if flag[0] in ("--mca", "--prtemca") else 1
    return " ".join(flag[:size]), " ".join(flag[size:])


def users_own_variable(flag: Sequence[str], environ: Mapping[str, str]) -> str | None:
    """Return the variable by which the user has set what a flag would set, if there is one.

    >>> users_own_variable(["--mca", "btl", "self,tcp"], {"OMPI_MCA_btl": "tcp"})
    'OMPI_MCA_btl'
    """
    prefixes = {"--mca": ("OMPI_MCA_",), "--prtemca": ("PRTE_MCA_", "OMPI_MCA_")}
    names = [prefix + flag[1] for prefix in prefixes.get(flag[0], ())]
    return next((name for name in names if name in environ), None)
