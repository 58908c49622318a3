"""Which messages does an all-reduce send, one after the other, by which algorithm?

Every rank sends and receives at the same time, so a round costs one message. Only what lies on
the critical path is counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.errors import PlanError

FLAT_ALGORITHMS = ("ring", "recursive_doubling", "rabenseifner", "tree", "openmpi")


@dataclass(frozen=True, slots=True)
class Round:
    """`count` messages of `bytes_`, one after the other.

    Args:
        at_start: only where all ranks begin together, and not right behind another all-reduce.
    """

    bytes_: float
    count: int = 1
    at_start: bool = False


def rounds(bytes_: float, n: int, algorithm: str = "ring") -> tuple[Round, ...]:
    """Return the rounds of an all-reduce of `bytes_` over `n` ranks.

    Args:
        algorithm: one of FLAT_ALGORITHMS; ``openmpi`` chooses by size and number of ranks.

    Raises:
        PlanError: there is no such algorithm.

    >>> rounds(1200.0, 3)
    (Round(bytes_=400.0, count=4, at_start=False),)
    >>> rounds(1000.0, 1)
    ()
    """
    if n <= 1:
        return ()
    if algorithm == "openmpi":
        algorithm = choose_open_mpi(bytes_, n)
    if algorithm == "ring":
        # 2(n-1) messages of S/n (Patarasuk and Yuan 2009).
        return (Round(bytes_ / n, 2 * (n - 1)),)
    if algorithm == "tree":
        # Up and down a binary tree, in pieces that follow one another: 2·log2(n) latencies and
        # two passes of the data (Sanders, Speck, Träff 2009, for NCCL's pair of trees). Of two
        # ranks each is the root of one tree: each half of the data crosses once a way.
        depth = (n - 1).bit_length()
        if depth == 1:
            return (Round(bytes_ / 2, 2),)
        return (Round(bytes_), Round(bytes_), Round(0.0, 2 * depth - 2))
    if algorithm == "recursive_doubling":
        return _recursive_doubling(bytes_, n)
    if algorithm == "rabenseifner":
        return _rabenseifner(bytes_, n)
    raise PlanError(
        f"algorithm: there is no such all-reduce, got '{algorithm}'; expected one of "
        f"{', '.join(FLAT_ALGORITHMS)}."
    )


def choose_open_mpi(bytes_: float, n: int) -> str:
    """Return the algorithm that Open MPI 5 takes for a sum of floats.

    Its component "tuned" decides by a table of its own (open-mpi/ompi v5.0,
    `ompi/mca/coll/tuned/coll_tuned_decision_fixed.c`); "nonoverlapping" there, which few sizes
    get, is taken for recursive doubling here, and a segmented ring without segments is a ring.

    >>> choose_open_mpi(8, 2), choose_open_mpi(100_000, 3), choose_open_mpi(4e6, 3)
    ('recursive_doubling', 'ring', 'rabenseifner')
    """
    small = "recursive_doubling"
    if n < 4:
        limits = ((4096, small), (8192, "ring"), (16384, small), (262144, "ring"))
    elif n < 16:
        limits = ((8192, small),)
    elif n < 32:
        limits = ((4096, small),)
    elif n < 64:
        limits = ((128, small),)
    elif n < 256:
        limits = ((262144, small),)
    elif n < 512:
        limits = ((4096, small),)
    else:
        limits = ((16384, small),)
    return next((name for limit, name in limits if bytes_ < limit), "rabenseifner")


def _recursive_doubling(bytes_: float, n: int) -> tuple[Round, ...]:
    """Exchange all of it log2(n) times; ranks beyond a power of two hand theirs over first, and
    get the result afterwards."""
    power = 1 << (n.bit_length() - 1)
    extra = 2 if n > power else 0
    return (Round(bytes_, power.bit_length() - 1 + extra),)


def _rabenseifner(bytes_: float, n: int) -> tuple[Round, ...]:
    """Reduce-scatter by halving, then all-gather by doubling (Rabenseifner 2004).

    Beyond a power of two, Open MPI has `rest` pairs swap halves, join them, and in the end pass
    on all of it. Meanwhile a rank without such a pair has sent its first part to one that has,
    over the same link (right behind another all-reduce it has done so before, while that link was
    free). So three ranks take more than twice as long as four.

    >>> sum(r.bytes_ * r.count for r in _rabenseifner(1.0, 4))
    1.5
    >>> sum(r.bytes_ * r.count for r in _rabenseifner(1.0, 3))
    3.5
    """
    power = 1 << (n.bit_length() - 1)
    rest = n - power
    steps = [Round(bytes_ / 2**k, 2) for k in range(1, power.bit_length())]
    if not rest:
        return tuple(steps)
    first_meeting = rest & -rest  # the lowest bit in which a paired and a free rank differ
    early = Round(bytes_ / (2 * first_meeting), at_start=True)
    return (Round(bytes_ / 2, 2), early, *steps, Round(bytes_))
