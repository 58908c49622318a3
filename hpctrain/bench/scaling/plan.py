"""What is to be measured, in which order? Pure functions of what was asked and of the hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hpctrain.bench.scaling.cases import Case, Mode, StoredSample, name_placement
from hpctrain.bench.scaling.placements import (
    Placed,
    Room,
    default_sizes,
    fewest_threads,
    plan_placements,
)
from hpctrain.config import Config
from hpctrain.config.schema import DEFAULT_BATCH_SIZE_PER_RANK, TrainConfig
from hpctrain.errors import PlanError, raise_all

WARMUP_STEPS, TIMED_STEPS = 5, 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What the cases are made of.

    Args:
        sizes: None for :func:`default_sizes`.
        precisions: of the trainer; none for what the configuration says.
        is_trainer: False for a COMMAND, of which only np and placement can be changed.
        is_local: no hosts were named: the ranks run on this machine.
    """

    sizes: tuple[int, ...] | None = None
    modes: tuple[Mode, ...] = ("weak",)
    precisions: tuple[str, ...] = ()
    is_trainer: bool = True
    is_local: bool = True


def plan_cases(wanted: Wanted, train: TrainConfig, rooms: Sequence[Room]) -> tuple[Case, ...]:
    """Return the cases, in the order in which each repeat goes through them.

    Raises:
        PlanError: with every size that has no room, and every batch that cannot be shared.
    """
    sizes = wanted.sizes or default_sizes(rooms)
    errors = list(_size_problems(sizes, rooms))
    batches = {
        (mode, np): plan_batch(mode, np, min(sizes), train, errors)
        for mode in wanted.modes
        for np in sizes
        if wanted.is_trainer
    }
    raise_all(PlanError, list(dict.fromkeys(errors)))
    slots = {room.name: room.slots for room in rooms}
    precisions = (wanted.precisions or (train.precision,)) if wanted.is_trainer else (None,)
    return tuple(
        _make_case(mode, np, precision, placed, slots, wanted, batches)
        for np in sizes
        for placed in plan_placements(np, rooms)
        for precision in precisions
        for mode in wanted.modes
    )


def plan_batch(mode: Mode, np: int, smallest: int, train: TrainConfig, errors: list[str]) -> str:
    """Return the override that gives a case its batch; what is wrong goes into `errors`.

    Weak keeps what each rank computes: ``batch_size_per_rank``, or the global batch shared among
    the ranks of the smallest size. Strong keeps the global batch, or what the smallest size has.
    """
    per_rank, whole = train.batch_size_per_rank, train.global_batch_size
    if mode == "strong":
        whole = whole or (per_rank or DEFAULT_BATCH_SIZE_PER_RANK) * smallest
        if whole < np:
            errors.append(
                f"--mode strong: fewer sequences than ranks, got a global batch of {whole} for "
                f"np {np}; expected at least {np}. Give --set train.global_batch_size=N."
            )
        return f"train.global_batch_size={whole}"
    if per_rank is None and whole is not None:
        if whole % smallest:
            errors.append(
                f"--mode weak: the smallest size cannot share the batch evenly, got "
                f"train.global_batch_size = {whole} for np {smallest}; expected a multiple. Give "
                "--set train.batch_size_per_rank=N."
            )
        per_rank = max(1, whole // smallest)
    return f"train.batch_size_per_rank={per_rank or DEFAULT_BATCH_SIZE_PER_RANK}"


def plan_config(config: Config, steps: int, threads_per_rank: int | None) -> Config:
    """Return the configuration that all cases share; each sets its batch and precision on top.

    The seed is the same in all of them. Hosts and np are each case's own; a trial that lost a host
    and went on is no measurement.
    """
    train = replace(
        config.train, steps=steps, tokens=None, global_batch_size=None, batch_size_per_rank=None
    )
    launch = replace(
        config.launch, np=None, hosts=None, spares=0, min_np=None, max_restarts=0,
        threads_per_rank=threads_per_rank,
    )  # fmt: skip
    return replace(config, train=train, launch=launch)


def with_batch(shared: Config, typed: Config) -> Config:
    """Return the shared configuration with the batch that was typed, as a record of it."""
    train = replace(
        shared.train,
        global_batch_size=typed.train.global_batch_size,
        batch_size_per_rank=typed.train.batch_size_per_rank,
    )
    return replace(shared, train=train)


def plan_threads(
    config: Config, cases: Sequence[Case], rooms: Sequence[Room]
) -> tuple[int | None, str]:
    """Return the threads that every rank gets in every case, and why, in words.

    Returns:
        None for the threads where they cannot be the same.
    """
    if config.launch.threads_per_rank is not None:
        return config.launch.threads_per_rank, "launch.threads_per_rank, as asked"
    threads = fewest_threads([_placed(case, rooms) for case in cases], rooms)
    if threads is None:
        unknown = ", ".join(room.name for room in rooms if room.cores is None)
        return None, (
            f"may differ between sizes, for the cores of {unknown} are not known: ask them with "
            "--probe, or set launch.threads_per_rank"
        )
    return threads, "what the fullest host gives each rank, the same in every case"


def _placed(case: Case, rooms: Sequence[Room]) -> Placed:
    """Return a case's hosts with their ranks."""
    if case.hosts is None:
        return ((rooms[0].name, case.np),)
    slots = sum(count for _, count in case.hosts)
    return case.hosts if case.np <= slots else plan_placements(case.np, rooms)[0]


def plan_order(
    cases: Sequence[Case], repeats: int, stored: Iterable[StoredSample]
) -> tuple[tuple[Case, int], ...]:
    """Return the trials that are left, repeats interleaved: sizes 1, 2, 4, then 1, 2, 4 again.

    What disturbs the machine for a while then disturbs every case, not one.
    """
    done = {(sample.case, sample.repeat) for sample in stored}
    return tuple(
        (case, repeat)
        for repeat in range(repeats)
        for case in cases
        if (case.key, repeat) not in done
    )


def allreduce_placements(cases: Sequence[Case]) -> dict[str, Case]:
    """Return one case for each placement of several ranks, by the placement's name."""
    found: dict[str, Case] = {}
    for case in cases:
        if case.np > 1:
            found.setdefault(case.placement, case)
    return found


def _size_problems(sizes: Sequence[int], rooms: Sequence[Room]) -> Iterable[str]:
    most = sum(room.limit for room in rooms)
    counted = ", ".join(f"{room.name}:{room.slots}" for room in rooms)
    for np in sizes:
        if np > most:
            yield (
                f"--np: more ranks than slots, got {np}; expected at most {most} ({counted}). "
                "Leave it out, give more slots, or share them with --oversubscribe."
            )


def _make_case(
    mode: Mode, np: int, precision: str | None, placed: Placed, slots: dict[str, int],
    wanted: Wanted, batches: dict[tuple[Mode, int], str],
) -> Case:  # fmt: skip
    overrides = (batches[mode, np],) if wanted.is_trainer else ()
    overrides += (f"train.precision={precision}",) if precision is not None else ()
    # Beyond the slots the launcher shares them out, from the hosts' own.
    fits = np <= sum(slots.values())
    hosts = placed if fits else tuple((name, slots[name]) for name, _ in placed)
    words = [mode, precision, name_placement(np, len(placed))]
    return Case(
        key="-".join(word for word in words if word is not None),
        mode=mode, np=np, nodes=len(placed), precision=precision,
        hosts=None if wanted.is_local else hosts, overrides=overrides,
    )  # fmt: skip
