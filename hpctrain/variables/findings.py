"""Variables in force → what is wrong with them: unknown, contradicting, another cloud's. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hpctrain.facts import HostFacts
from hpctrain.launch.rule import parse_version
from hpctrain.variables.explain import Variable
from hpctrain.variables.names import why_unknown

Values = Mapping[str, str]
ON = ("1", "true", "yes", "y")
MOST_SOCKET_THREADS, MOST_SOCKETS = 16, 64


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a variable: `kind` is ``unknown``, ``conflict``, ``cloud`` or ``care``."""

    kind: str
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two settings that do not go together.

    Args:
        names: of which the first is named as the one to look at.
        test: whether the values contradict.
    """

    names: tuple[str, ...]
    test: Callable[[Values], bool]
    text: str
    kind: str = "conflict"


def _both(*names: str) -> Callable[[Values], bool]:
    return lambda values: all(values.get(name) for name in names)


def _is_on(name: str) -> Callable[[Values], bool]:
    return lambda values: values.get(name, "").lower() in ON


def _include_and_exclude(name: str) -> Conflict:
    names = (f"{name}_include", f"{name}_exclude")
    text = "include and exclude lists exclude each other: Open MPI refuses to start with both"
    return Conflict(names, _both(*names), text)


# Sources: NCCL 2.30 user guide, 'Environment Variables'; Open MPI FAQ, 'TCP'; AWS, EFA cheat sheet.
CONFLICTS: tuple[Conflict, ...] = (
    *(
        _include_and_exclude(name)
        for name in ("OMPI_MCA_btl_tcp_if", "OMPI_MCA_oob_tcp_if", "PRTE_MCA_prte_if",
                     "PRTE_MCA_oob_tcp_if")
    ),
    Conflict(
        ("NCCL_IB_DISABLE", "NCCL_NET"),
        lambda v: v.get("NCCL_IB_DISABLE") == "1"
        and v.get("NCCL_NET", "").lower() in ("ib", "gib"),
        "NCCL_NET asks for InfiniBand, which NCCL_IB_DISABLE=1 takes away: NCCL ends with an error",
    ),
    Conflict(
        ("NCCL_IB_DISABLE", "NCCL_IB_HCA"),
        lambda v: v.get("NCCL_IB_DISABLE") == "1" and bool(v.get("NCCL_IB_HCA")),
        "NCCL_IB_HCA is ignored: NCCL_IB_DISABLE=1 takes InfiniBand away",
    ),
    Conflict(
        ("NCCL_NET", "NCCL_IB_HCA"),
        lambda v: v.get("NCCL_NET", "").lower() == "socket" and bool(v.get("NCCL_IB_HCA")),
        "NCCL_IB_HCA is ignored: NCCL_NET=Socket asks for TCP",
    ),
    Conflict(
        ("NCCL_SOCKET_NTHREADS", "NCCL_NSOCKS_PERTHREAD"),
        lambda v: _number(v, "NCCL_SOCKET_NTHREADS") > MOST_SOCKET_THREADS
        or _number(v, "NCCL_SOCKET_NTHREADS") * _number(v, "NCCL_NSOCKS_PERTHREAD") > MOST_SOCKETS,
        f"at most {MOST_SOCKET_THREADS} threads, and {MOST_SOCKETS} sockets in all of them",
    ),
    Conflict(
        ("UCX_NET_DEVICES", "OMPI_MCA_pml"),
        lambda v: bool(v.get("UCX_NET_DEVICES")) and v.get("OMPI_MCA_pml") == "ob1",
        "UCX_NET_DEVICES is ignored: MPI goes by ob1, not by UCX",
    ),
    Conflict(
        ("NCCL_P2P_DISABLE",), _is_on("NCCL_P2P_DISABLE"),
        "for debugging alone: GPUs then exchange through host memory", "care",
    ),
    Conflict(
        ("NCCL_SHM_DISABLE",), _is_on("NCCL_SHM_DISABLE"),
        "for debugging alone: GPUs of a host then exchange over the network", "care",
    ),
    Conflict(
        ("RDMAV_FORK_SAFE",), _both("RDMAV_FORK_SAFE"),
        "breaks things on newer kernels; FI_EFA_FORK_SAFE is the one for EFA", "care",
    ),
    Conflict(
        ("NCCL_DEBUG", "NCCL_DEBUG_FILE"),
        lambda v: v.get("NCCL_DEBUG", "").upper() in ("INFO", "TRACE")
        and not v.get("NCCL_DEBUG_FILE"),
        "every rank writes thousands of lines: NCCL_DEBUG_FILE=/tmp/nccl.%h.%p takes them", "care",
    ),
)  # fmt: skip
# A name, or a value of one, that belongs to one cloud.
CLOUD_NAMES = {
    "FI_EFA_": "aws",
    "NCCL_GPUDIRECTTCPX_": "gcp",
    "NCCL_FASTRAK_": "gcp",
}
CLOUD_VALUES = {
    ("NCCL_NET", "AWS Libfabric"): "aws",
    ("NCCL_NET", "GPUDirectTCPX_v7"): "gcp",
    ("NCCL_NET", "FasTrak"): "gcp",
    ("NCCL_NET", "gIB"): "gcp",
    ("FI_PROVIDER", "efa"): "aws",
}


def find_problems(
    variables: Sequence[Variable], interfaces: Sequence[str], facts: HostFacts | None
) -> list[Finding]:
    """Return what is wrong on one host.

    Args:
        interfaces: names of those that are up there.
        facts: what is known of the host; without it, nothing of clouds and versions is said.
    """
    values = {variable.name: variable.value for variable in variables}
    findings = [Finding("unknown", name, text) for name in values if (text := why_unknown(name))]
    findings += [
        Finding(conflict.kind, _first_of(conflict.names, values), conflict.text)
        for conflict in CONFLICTS
        if conflict.test(values)
    ]
    findings += _missing_interface(values, interfaces)
    if facts is not None:
        findings += _other_clouds(values, facts)
        findings += _needless(values, facts)
    return findings


def find_differences(by_host: Mapping[str, Sequence[Variable]]) -> list[Finding]:
    """Return variables that differ between hosts, where ranks must agree or will not.

    Names of interfaces may differ: they are each host's own.
    """
    names = {variable.name for variables in by_host.values() for variable in variables}
    findings = []
    for name in sorted(names):
        if name.endswith("_IFNAME") or name.endswith("_IFACE"):
            continue
        values: dict[str, list[str]] = {}
        for host, variables in by_host.items():
            value = next((v.value for v in variables if v.name == name), "(not set)")
            values.setdefault(value, []).append(host)
        if len(values) > 1:
            told = "; ".join(f"{value} on {_some(hosts)}" for value, hosts in values.items())
            findings.append(Finding("conflict", name, f"hosts differ: {told}"))
    return findings


def _some(hosts: Sequence[str]) -> str:
    return ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")


def _missing_interface(values: Values, interfaces: Sequence[str]) -> Iterator[Finding]:
    """NCCL ends where a name matches nothing, in place of falling back."""
    value = values.get("NCCL_SOCKET_IFNAME", "")
    if not value or value.startswith(("^", "(")) or not interfaces:
        return
    exact = value.startswith("=")
    wanted = [name for name in value.removeprefix("=").split(",") if name]

    def is_there(name: str) -> bool:
        return any(up == name if exact else up.startswith(name) for up in interfaces)

    if not any(is_there(name) for name in wanted):
        yield Finding(
            "conflict", "NCCL_SOCKET_IFNAME",
            f"no interface that is up matches {value}: NCCL ends with an error. There are "
            f"{', '.join(interfaces)}",
        )  # fmt: skip


def _other_clouds(values: Values, facts: HostFacts) -> Iterator[Finding]:
    here = facts.cloud or "no cloud"
    for name, value in values.items():
        cloud = next((c for start, c in CLOUD_NAMES.items() if name.startswith(start)), None)
        cloud = cloud or CLOUD_VALUES.get((name, value))
        if cloud is not None and cloud != facts.cloud:
            yield Finding("cloud", name, f"belongs to {cloud}, and this host is in {here}")


def _needless(values: Values, facts: HostFacts) -> Iterator[Finding]:
    nccl = facts.versions.get("nccl", "")
    if "NCCL_IB_GID_INDEX" in values and parse_version(nccl) >= (2, 21):
        text = f"NCCL {nccl} finds it by itself; a number that is right on one host may not be "
        yield Finding("care", "NCCL_IB_GID_INDEX", f"{text}on another")


def _first_of(names: Sequence[str], values: Values) -> str:
    return next((name for name in names if name in values), names[0])


def _number(values: Values, name: str) -> int:
    """Return a count; 1 where it is not set or no number, as NCCL takes it at least."""
    text = values.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 1
