"""The facts that the tuning rules ask for: situation → the fact in words, "" where it is not so.

Those of mpirun and of the network; `conditions_fabric.py` has those of fast fabrics and GPUs. Pure.
"""

from __future__ import annotations

from hpctrain.launch.conditions_fabric import on_efa
from hpctrain.launch.situation import Situation

# From here on mpirun would start daemons through other hosts' daemons: ssh from any to any.
TREE_LAUNCH_HOSTS = 64


def always(situation: Situation) -> str:
    return f"{sum(situation.local_ranks)} ranks"


def started_by_root(situation: Situation) -> str:
    return "user id 0" if situation.facts.launcher.user_id == 0 else ""


def without_ssh(situation: Situation) -> str:
    return "no ssh on PATH" if not situation.is_remote and not situation.facts.has_ssh else ""


def on_other_hosts(situation: Situation) -> str:
    return "ranks on other hosts" if situation.is_remote else ""


def on_many_hosts(situation: Situation) -> str:
    count = len(situation.host_names)
    return f"{count} hosts" if count >= TREE_LAUNCH_HOSTS else ""


def on_cpus(situation: Situation) -> str:
    """Ranks compute on the CPU."""
    if situation.uses_gpus:
        return ""
    if situation.unknown_hosts():
        return situation.describe_absence("no GPU")
    cores = sum(facts.cores for facts in situation.known_hosts())
    return f"no GPU in use; {sum(situation.local_ranks)} ranks on {cores} cores"


def gpus_exchange_by_nccl(situation: Situation) -> str:
    """MPI carries little, so TCP is enough; not where that word would bind NCCL as well."""
    if not situation.uses_gpus:
        return ""
    if situation.facts.mpi_flavour in ("mpich", "intelmpi") and on_efa(situation):
        return ""  # FI_PROVIDER=tcp would keep NCCL's plugin, which reads it too, off the EFA
    if any(facts.rdma_ports for facts in situation.known_hosts()):
        return "RDMA ports, but GPUs as well"
    return situation.describe_absence("no active RDMA port")


def cpus_without_fabric(situation: Situation) -> str:
    """Ranks compute on the CPU, on one machine or on hosts without RDMA."""
    if situation.uses_gpus:
        return ""
    if any(facts.rdma_ports for facts in situation.known_hosts()):
        # Between hosts MPI is left the fast fabric that it finds.
        return "" if situation.is_remote else "RDMA ports, but all ranks on one machine"
    return situation.describe_absence("no active RDMA port")


# -- the chosen network --------------------------------------------------------------------------


def subnet_chosen(situation: Situation) -> str:
    return situation.subnet_fact if situation.is_remote and situation.subnet else ""


def subnet_for_cidr_readers(situation: Situation) -> str:
    """The launcher reads networks as they are: every one but Open MPI 5's."""
    return "" if situation.facts.mpi_flavour == "openmpi5" else subnet_chosen(situation)


def interface_name_is_shared(situation: Situation) -> str:
    """Open MPI 5, and the interface is called alike on the launching machine and all hosts."""
    if situation.facts.mpi_flavour != "openmpi5" or not subnet_chosen(situation):
        return ""
    name = shared_interface(situation)
    return f"the interface is called {name} on every host" if name else ""


def subnet_without_ipv6(situation: Situation) -> str:
    """Open MPI 5, no shared name, and no interface whose IPv6 would spoil the network."""
    is_5 = situation.facts.mpi_flavour == "openmpi5"
    if not is_5 or not situation.subnet or shared_interface(situation):
        return ""
    machines = [situation.facts.launcher, *situation.known_hosts()]
    if any(facts.has_global_ipv6_beside(situation.subnet) for facts in machines):
        return ""
    return subnet_chosen(situation)


def chosen_subnet(situation: Situation) -> str:
    return situation.subnet or ""


def shared_interface(situation: Situation) -> str:
    """Return the name of the chosen network's interface where it is the same everywhere."""
    if not situation.subnet or situation.unknown_hosts():
        return ""
    machines = [situation.facts.launcher, *situation.known_hosts()]
    names = {facts.interface_in(situation.subnet) for facts in machines}
    return names.pop() or "" if len(names) == 1 else ""
