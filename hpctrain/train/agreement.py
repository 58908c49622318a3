"""How ranks fail together: one message, one exit code, and nobody left waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpctrain.errors import HpctrainError, OtherRankError

if TYPE_CHECKING:
    from hpctrain.train.communicator import Communicator


def raise_together(comm: Communicator, problem: HpctrainError | None) -> None:
    """Raise on every rank if any rank has a problem; every rank must call this.

    A rank that raised alone would leave the others waiting in their next exchange.

    Raises:
        HpctrainError: `problem` itself, on the lowest rank that has one.
        OtherRankError: on the others, with that rank's exit code.
    """
    import torch

    codes = torch.zeros(comm.size, dtype=torch.float64)
    if problem is not None:
        codes[comm.rank] = problem.exit_code
    comm.all_reduce_sum(codes, "problems")
    failed = codes.nonzero().flatten().tolist()
    if not failed:
        return
    if failed[0] == comm.rank and problem is not None:
        raise problem
    raise OtherRankError(
        f"rank {comm.rank}: stopped because rank {failed[0]} cannot go on; it says why.",
        exit_code=int(codes[failed[0]]),
    )
