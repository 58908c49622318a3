"""Settings of Open MPI that are worth trying. Pure: facts in, knobs out."""

from __future__ import annotations

from collections.abc import Mapping

from hpctrain.tune.knobs import ALLREDUCE, EAGER, YIELD, Knob, LeftOut, TuneFacts, Value, describe

# What Open MPI's own decision function takes as segment for its segmented ring (coll_tuned).
RING_SEGMENT_BYTES = 1 << 20
EAGER_BYTES = str(32 << 20)


def plan_yield(facts: TuneFacts) -> Knob | LeftOut:
    """Plan whether ranks that wait in MPI leave their core to others."""
    if (unfit := _needs_open_mpi(YIELD, facts)) is not None:
        return unfit
    variable = f"launch.env.OMPI_MCA_{YIELD}"
    yields = str(facts.given.get(variable, "0" if facts.uses_gpus else "1")) not in ("0", "false")
    label = "0" if yields else "1"
    return Knob(
        name=YIELD, base="1" if yields else "0", values=(Value(label, {variable: label}),),
        reason="waiting awake answers sooner, yielding leaves the core to who computes",
        source="Open MPI, mpi_yield_when_idle; docs/tuning.md",
    )  # fmt: skip


def plan_allreduce(facts: TuneFacts) -> Knob | LeftOut:
    """Plan which all-reduce Open MPI takes."""
    if (unfit := _needs_open_mpi(ALLREDUCE, facts)) is not None:
        return unfit
    base = str(facts.given.get(f"launch.env.OMPI_MCA_{ALLREDUCE}", "Open MPI's choice"))
    # In version 5 coll/han stands above coll/tuned where ranks share nodes (priority 35 over 30).
    over_han = facts.mpi_flavour == "openmpi5" and facts.nodes > 1
    others = {"coll_han_priority": "0"} if over_han else {}
    values = [Value("tuned", _mca(others))] if over_han else []
    for number, name in _algorithms(facts.np):
        forced = {"coll_tuned_use_dynamic_rules": "1", ALLREDUCE: number, **others}
        if name == "segmented_ring":
            forced[f"{ALLREDUCE}_segmentsize"] = str(RING_SEGMENT_BYTES)
        values.append(Value(name, _mca(forced)))
    return Knob(
        name=ALLREDUCE, base=base, values=tuple(v for v in values if v.label != base),
        reason=f"{facts.np} ranks on {facts.nodes} node{'s' * (facts.nodes > 1)}: Open MPI "
        "chooses by size and number of ranks alone, measured on its authors' machines",
        source="ompi_info --param coll tuned --level 9; Thakur et al. 2005",
    )  # fmt: skip


def plan_eager(facts: TuneFacts) -> Knob | LeftOut:
    """Plan up to which size TCP messages go out without asking first."""
    if (unfit := _needs_open_mpi(EAGER, facts)) is not None:
        return unfit
    if facts.nodes == 1 or facts.has_rdma:
        where = "one node" if facts.nodes == 1 else "an RDMA port"
        return LeftOut(EAGER, f"MPI does not exchange over TCP: {where}")
    base = str(facts.given.get(f"launch.env.OMPI_MCA_{EAGER}", "65536"))
    # Both: up to the second, a message that asks for leave sends this much with its request.
    forced = {EAGER: EAGER_BYTES, "btl_tcp_rndv_eager_limit": EAGER_BYTES}
    values = (Value(EAGER_BYTES, _mca(forced)),)
    return Knob(
        name=EAGER, base=base, values=tuple(v for v in values if v.label != base),
        reason="a longer message asks first, and the answer waits behind data that go the other "
        "way; without that it costs memory for what comes before it is wanted",
        source="ompi_info --param btl tcp --level 9; docs/prediction.md",
    )  # fmt: skip


def _algorithms(np: int) -> tuple[tuple[str, str], ...]:
    """Return coll_tuned's numbers and names; two ranks have no use for the others."""
    if np == 2:
        return (("3", "recursive_doubling"), ("4", "ring"))
    return (("4", "ring"), ("5", "segmented_ring"), ("6", "rabenseifner"))


def _mca(parameters: Mapping[str, str]) -> dict[str, str]:
    return {f"launch.env.OMPI_MCA_{name}": value for name, value in parameters.items()}


def _needs_open_mpi(name: str, facts: TuneFacts) -> LeftOut | None:
    if facts.carrier != "mpi":
        return LeftOut(name, f"MPI exchanges nothing: {describe(facts)}")
    if not facts.mpi_flavour.startswith("openmpi"):
        return LeftOut(name, f"Open MPI's setting; this is {facts.mpi_flavour}")
    return None
