"""Which settings are worth trying here, with which values, and why? Pure: facts in, knobs out.

A knob has the value that a run has now and a few others, the likeliest first. What does not apply
is named too, with the reason. Settings of Open MPI stand as variables (``OMPI_MCA_…``) in
``launch.env``: versions 4 and 5 both read them, while a further ``--mca`` behind one that a rule
has set would give the flag twice, with two values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from hpctrain.tune.knobs import (
    ALGO,
    ALLREDUCE,
    BUCKET,
    COMPRESSION,
    CYCLE,
    EAGER,
    MAX_CHANNELS,
    MIN_CHANNELS,
    PROTO,
    SOCKETS,
    THREADS,
    YIELD,
    Knob,
    LeftOut,
    TuneFacts,
    Value,
    describe,
)
from hpctrain.tune.knobs_mpi import plan_allreduce, plan_eager, plan_yield

MIB = 1024 * 1024
BUCKET_SIZES_MB = (0.25, 1, 4, 10, 25, 64, 128, 256)
MOST_BUCKETS = 64
MOST_BUCKET_VALUES = 4
NCCL_DOC = "NCCL 2.30 user guide, 'Environment Variables'"
Rule = Callable[[TuneFacts], Knob | LeftOut]


def knob_names() -> list[str]:
    """Return the names of all knobs, whether or not they apply."""
    return list(RULES)


def plan_knobs(
    facts: TuneFacts, only: Sequence[str] = ()
) -> tuple[tuple[Knob, ...], tuple[LeftOut, ...]]:
    """Return the knobs to try, and those that are not, each with the reason.

    Args:
        only: names of the knobs that are wanted; empty for all that apply.
    """
    knobs, left_out = [], []
    for name, rule in RULES.items():
        found = _shell_has(name, facts) or rule(facts)
        if isinstance(found, LeftOut):
            left_out.append(found)
        elif only and name not in only:
            left_out.append(LeftOut(name, "not asked for (--only)"))
        elif not found.values:
            left_out.append(LeftOut(name, f"no value to try besides {found.base}"))
        else:
            knobs.append(found)
    return tuple(knobs), tuple(left_out)


def _shell_has(name: str, facts: TuneFacts) -> LeftOut | None:
    """What is set in this shell is the user's: a file could not be told apart from it later."""
    variables = {name, f"OMPI_MCA_{name}", *({"OMP_NUM_THREADS"} if name == THREADS else ())}
    own = sorted(variables & facts.shell)
    return LeftOut(name, f"yours: {own[0]} is set in this shell") if own else None


def _bucket(facts: TuneFacts) -> Knob | LeftOut:
    if facts.carrier == "nothing":
        return _alone(BUCKET)
    if facts.exchange == "native" and facts.backend == "horovod":
        return LeftOut(BUCKET, "comm.exchange is native: Horovod fuses tensors by its own size")
    base = float(facts.given.get(BUCKET, 25.0))
    size = facts.gradient_bytes
    about = f"{size / MIB:.1f} MiB of gradients" if size else "gradients of unknown size"
    return Knob(
        name=BUCKET, base=f"{base:g}",
        values=tuple(Value(f"{mb:g}", {BUCKET: mb}) for mb in _bucket_sizes(base, size)),
        reason=f"{about}: small buckets start early, large ones cost fewer round trips",
        source="Li et al. 2020, 'PyTorch Distributed', section 3.2.3",
    )  # fmt: skip


def _bucket_sizes(base: float, gradient_bytes: int | None) -> Iterator[float]:
    """Yield sizes (MiB) that cut the gradients into another number of buckets than `base`."""
    if gradient_bytes is None:
        yield from (size for size in (4, 10, 64, 128) if size != base)
        return
    whole = gradient_bytes / MIB
    seen = {_count(whole, base)}
    found = 0
    for size in sorted(BUCKET_SIZES_MB, key=lambda size: abs(size - base)):
        count = _count(whole, size)
        if count not in seen and count <= MOST_BUCKETS and found < MOST_BUCKET_VALUES:
            seen.add(count)
            found += 1
            yield size


def _count(whole: float, size: float) -> int:
    return max(1, -int(-whole // size))


def _compression(facts: TuneFacts) -> Knob | LeftOut:
    if facts.carrier == "nothing":
        return _alone(COMPRESSION)
    base = str(facts.given.get(COMPRESSION, "none"))
    formats = ("fp16", "bf16") if facts.backend == "ddp" else ("fp16",)
    return Knob(
        name=COMPRESSION, base=base,
        values=tuple(Value(name, {COMPRESSION: name}) for name in formats if name != base),
        reason="half the bytes for a conversion at each end; gradients lose digits",
        source="docs/training.md", lossy=True,
    )  # fmt: skip


def _threads(facts: TuneFacts) -> Knob | LeftOut:
    cores = facts.cores_per_rank
    if facts.uses_gpus:
        return LeftOut(THREADS, "the GPUs compute")
    if cores is None:
        return LeftOut(THREADS, "a host was never asked for its cores; --probe asks")
    base = int(facts.given.get(THREADS) or cores)
    tried = dict.fromkeys((2,) if cores == 1 else (cores, cores - 1, cores // 2))
    return Knob(
        name=THREADS, base=str(base),
        values=tuple(Value(str(n), {THREADS: n}) for n in tried if n != base),
        reason=f"{cores} core{'s' * (cores > 1)} a rank, which the exchange's own threads need too",
        source="docs/tuning.md",
    )  # fmt: skip


def _cycle(facts: TuneFacts) -> Knob | LeftOut:
    if facts.carrier == "nothing" or facts.backend != "horovod":
        return LeftOut(CYCLE, "Horovod exchanges nothing here")
    given = facts.given.get(f"launch.env.{CYCLE}")
    base = str(given or ("1" if facts.uses_gpus else "chosen by the trainer"))
    tried = ("2.5", "5", "0.5") if facts.uses_gpus else ("1", "5", "2.5", "10")
    return Knob(
        name=CYCLE, base=base,
        values=tuple(Value(ms, {f"launch.env.{CYCLE}": ms}) for ms in tried if ms != base),
        reason="ms between looks for work: each costs the cores time, each exchange waits for one",
        source="Horovod 0.28.1, docs/tensor-fusion.rst; docs/tuning.md",
    )  # fmt: skip


def _nccl(name: str, labels: Sequence[str], reason: str) -> Rule:
    def rule(facts: TuneFacts) -> Knob | LeftOut:
        if (unfit := _needs_nccl(name, facts)) is not None:
            return unfit
        key = f"launch.env.{name}"
        base = str(facts.given.get(key, "NCCL's choice"))
        values = tuple(Value(label, {key: label}) for label in labels if label != base)
        return Knob(name=name, base=base, values=values, reason=reason, source=NCCL_DOC)

    return rule


def _sockets(facts: TuneFacts) -> Knob | LeftOut:
    if (unfit := _needs_nccl(SOCKETS, facts)) is not None:
        return unfit
    if facts.nodes == 1 or facts.has_rdma:
        where = "one node" if facts.nodes == 1 else "an RDMA port"
        return LeftOut(SOCKETS, f"NCCL does not exchange over TCP: {where}")
    names = (f"launch.env.{SOCKETS}", "launch.env.NCCL_NSOCKS_PERTHREAD")
    tried = (("4", "1"), ("2", "8"), ("4", "4"))
    base = " x ".join(str(facts.given.get(name, "?")) for name in names)
    values = (Value(f"{a} x {b}", dict(zip(names, (a, b), strict=True))) for a, b in tried)
    return Knob(
        name=SOCKETS, base="NCCL's choice" if base == "? x ?" else base,
        values=tuple(value for value in values if value.label != base),
        reason="threads x sockets of each: one TCP connection does not fill a fast network",
        source=NCCL_DOC,
    )  # fmt: skip


def _needs_nccl(name: str, facts: TuneFacts) -> LeftOut | None:
    return None if facts.carrier == "nccl" else LeftOut(name, f"no NCCL: {describe(facts)}")


def _alone(name: str) -> LeftOut:
    return LeftOut(name, "nothing is exchanged by one rank or without comm.backend")


# LL128 is not forced: on hardware without it, it corrupts data (the same guide).
RULES: Mapping[str, Rule] = {
    BUCKET: _bucket,
    YIELD: plan_yield,
    CYCLE: _cycle,
    ALLREDUCE: plan_allreduce,
    EAGER: plan_eager,
    THREADS: _threads,
    ALGO: _nccl(ALGO, ("Ring", "Tree"), "rings fill links, trees have fewer hops"),
    PROTO: _nccl(PROTO, ("Simple", "LL"), "Simple for bandwidth, LL for latency"),
    MIN_CHANNELS: _nccl(MIN_CHANNELS, ("16", "32"), "more channels fill fast links"),
    MAX_CHANNELS: _nccl(MAX_CHANNELS, ("8", "4"), "fewer leave multiprocessors to backward"),
    SOCKETS: _sockets,
    COMPRESSION: _compression,
}
