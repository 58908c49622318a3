"""The tuning rules: facts → settings, each with its reason. One function a rule, nothing hidden.

Fewer variables are better than more: a rule sets something only where a fact asks for it and a
source says so. What it sets is an *intent*, which `dialects.py` words for each MPI, or a plain
variable. What the user has set already is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hpctrain.facts import Facts, HostFacts

HOROVOD_MPI_DOC = "Horovod 0.28.1, docs/mpi.rst"
OPEN_MPI_TCP_FAQ = "Open MPI FAQ, 'TCP: selecting interfaces'"
NCCL_ENV_DOC = "NCCL 2.30 user guide, 'Environment Variables'"
PRRTE_SEEN = "seen with Open MPI 5.0.11: a CIDR on an interface with IPv6 too is ignored"
MEASURED = "measured by hpctrain, docs/tuning.md"
# From here on mpirun would start daemons through other hosts' daemons: ssh from any to any.
TREE_LAUNCH_HOSTS = 64


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that a rule wants: an intent of `dialects.py`, or ``env:NAME``."""

    intent: str
    value: str
    rule: str
    fact: str
    source: str


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rules see of one launch.

    Args:
        host_names: the hosts that get ranks, in order.
        local_ranks: ranks on each of them, in the same order.
        uses_gpus: whether ranks compute on GPUs.
        subnet: the network chosen for MPI's traffic, if any, and the fact behind the choice.
    """

    facts: Facts
    host_names: tuple[str, ...]
    local_ranks: tuple[int, ...]
    uses_gpus: bool
    subnet: str | None
    subnet_fact: str

    @property
    def is_remote(self) -> bool:
        return any(not self.facts.is_launcher(name) for name in self.host_names)

    def known_hosts(self) -> list[HostFacts]:
        return [facts for name in self.host_names if (facts := self.facts.of(name)) is not None]

    def unknown_hosts(self) -> list[str]:
        """Return the hosts that were never asked what they are."""
        return [name for name in self.host_names if self.facts.of(name) is None]

    def all_hosts(self, test: Callable[[HostFacts], bool]) -> bool:
        """Return whether every host is known and passes."""
        known = self.known_hosts()
        return len(known) == len(self.host_names) and all(test(facts) for facts in known)


def plan_settings(situation: Situation) -> list[Setting]:
    """Return every setting that the rules ask for, in the order of :data:`RULES`."""
    return [setting for rule in RULES for setting in rule(situation)]


def _no_binding(situation: Situation) -> Iterator[Setting]:
    yield Setting(
        "bind_none", "",
        "ranks are not pinned: Horovod's and torch's threads need more than one core each",
        f"{sum(situation.local_ranks)} ranks", HOROVOD_MPI_DOC,
    )  # fmt: skip


def _root(situation: Situation) -> Iterator[Setting]:
    if situation.facts.launcher.user_id == 0:
        yield Setting(
            "allow_root", "", "mpirun refuses root unless told otherwise", "user id 0",
            "mpirun(1), --allow-run-as-root",
        )  # fmt: skip


def _no_ssh(situation: Situation) -> Iterator[Setting]:
    if not situation.is_remote and not situation.facts.has_ssh:
        yield Setting(
            "no_ssh", "", "a launch on one machine must not look for ssh", "no ssh on PATH",
            "seen with Open MPI 4.1.8: it ends in plm_rsh_component.c",
        )  # fmt: skip


def _tcp_and_shared_memory(situation: Situation) -> Iterator[Setting]:
    fabric = any(facts.rdma_ports for facts in situation.known_hosts())
    if fabric and not situation.uses_gpus and situation.is_remote:
        return  # ranks on CPUs exchange through MPI: leave it the fast fabric
    yield Setting(
        "tcp_transport", "",
        "MPI stays on shared memory and TCP, which are always there"
        + ("; NCCL carries the bulk on GPUs" if situation.uses_gpus else ""),
        "RDMA ports, but GPUs as well" if fabric else _known("no active RDMA port", situation),
        HOROVOD_MPI_DOC,
    )  # fmt: skip


def _subnet(situation: Situation) -> Iterator[Setting]:
    subnet = situation.subnet
    if not situation.is_remote or not subnet:
        return
    rule = (
        "one network that all hosts share, by its CIDR: interface names differ between hosts, "
        "and docker0 or virbr0 lead nowhere"
    )
    yield Setting("subnet", subnet, rule, situation.subnet_fact, OPEN_MPI_TCP_FAQ)
    if situation.facts.mpi_flavour != "openmpi5":
        yield Setting("control_subnet", subnet, rule, situation.subnet_fact, OPEN_MPI_TCP_FAQ)
        return
    machines = [situation.facts.launcher, *situation.known_hosts()]
    names = {facts.interface_in(subnet) for facts in machines}
    all_known = len(machines) == 1 + len(situation.host_names)
    if all_known and len(names) == 1 and (name := names.pop()):
        fact = f"the interface is called {name} on every host"
        yield Setting("control_subnet", name, rule, fact, PRRTE_SEEN)
    elif not any(facts.has_global_ipv6_beside(subnet) for facts in machines):
        yield Setting("control_subnet", subnet, rule, situation.subnet_fact, PRRTE_SEEN)


def _yield_when_idle(situation: Situation) -> Iterator[Setting]:
    if situation.uses_gpus:
        return
    yield Setting(
        "yield_when_idle", "",
        "ranks that compute on the CPU fill the cores: a rank that waits in MPI must not take "
        "one from a rank that computes",
        _describe_cores(situation), MEASURED,
    )  # fmt: skip


def _keepalive(situation: Situation) -> Iterator[Setting]:
    if situation.is_remote:
        yield Setting(
            "keepalive", "",
            "a pulled cable is noticed in seconds; by default after 300 s and 9 probes of 20 s",
            "ranks on other hosts", "prte_info --all of Open MPI 5.0.11",
        )  # fmt: skip


def _no_tree_launch(situation: Situation) -> Iterator[Setting]:
    if len(situation.host_names) >= TREE_LAUNCH_HOSTS:
        yield Setting(
            "no_tree_launch", str(len(situation.host_names)),
            "the launcher starts every host itself: a tree needs ssh from any host to any host",
            f"{len(situation.host_names)} hosts", "Open MPI, plm_rsh_no_tree_spawn",
        )  # fmt: skip


def _nccl_over_infiniband(situation: Situation) -> Iterator[Setting]:
    has_infiniband = situation.all_hosts(
        lambda facts: any(port.link_layer == "InfiniBand" for port in facts.rdma_ports)
    )
    if situation.uses_gpus and situation.is_remote and has_infiniband:
        ports = situation.facts.launcher.rdma_ports
        yield Setting(
            "env:NCCL_NET", "IB",
            "a fabric that fails is an error, in place of a silent fall back to TCP",
            f"active InfiniBand ports on every host ({', '.join(p.device for p in ports)} here)",
            NCCL_ENV_DOC,
        )  # fmt: skip


def _efa(situation: Situation) -> Iterator[Setting]:
    has_efa = situation.all_hosts(
        lambda facts: (
            facts.cloud == "aws"
            and any(port.device.startswith(("efa", "rdmap")) for port in facts.rdma_ports)
        )
    )
    if situation.uses_gpus and situation.is_remote and has_efa:
        yield Setting(
            "env:FI_EFA_USE_HUGE_PAGE", "0",
            "fork after huge pages are taken fails in data loaders",
            "EFA devices on every host", "AWS, aws-ofi-nccl 'EFA cheat sheet'",
        )  # fmt: skip


def _describe_cores(situation: Situation) -> str:
    cores = sum(facts.cores for facts in situation.known_hosts())
    ranks = sum(situation.local_ranks)
    if situation.unknown_hosts():
        return _known("no GPU", situation)
    return f"no GPU in use; {ranks} ranks on {cores} cores"


def _known(absence: str, situation: Situation) -> str:
    """Word an absence: a host that was never asked may have what others lack."""
    unknown = situation.unknown_hosts()
    return f"{absence} known; {len(unknown)} hosts were never asked" if unknown else absence


RULES: tuple[Callable[[Situation], Iterator[Setting]], ...] = (
    _no_binding,
    _root,
    _no_ssh,
    _tcp_and_shared_memory,
    _subnet,
    _yield_when_idle,
    _keepalive,
    _no_tree_launch,
    _nccl_over_infiniband,
    _efa,
)
