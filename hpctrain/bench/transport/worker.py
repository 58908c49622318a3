"""The rank side of the transport probe: one small exchange, and what the library says of it.

Started on every rank by :mod:`hpctrain.bench.transport.prove`. What a library prints goes into a
file of this rank's own, of which the lines that tell are sent to the launcher.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hpctrain.bench.transport.lines import telling_lines
from hpctrain.errors import HpctrainError, LaunchError
from hpctrain.events import emit

# The libraries read these when they start, so they are set before that; each reads its own.
MPI_REPORT_VARIABLES = {
    "OMPI_MCA_ompi_display_comm": "mpi_init",  # Open MPI 5
    "OMPI_MCA_btl_base_verbose": "100",  # Open MPI 4 has no such summary
    "UCX_LOG_LEVEL": "info",
    "I_MPI_DEBUG": "5",
    "MPIR_CVAR_DEBUG_SUMMARY": "1",
}
NCCL_REPORT_VARIABLES = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,GRAPH,ENV,NET"}
NUMEL = 1 << 18  # 1 MiB of fp32: enough for every channel


def main(argv: Sequence[str] | None = None) -> int:
    """Exchange on this rank and report; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--by", default="mpi", choices=["mpi", "gloo", "horovod"])
    asked = parser.parse_args(argv)
    try:
        _report(asked.device, asked.by)
    except HpctrainError as problem:
        print("\n".join(problem.messages), file=sys.stderr)
        return problem.exit_code
    return 0


def _report(device: str, by: str) -> None:
    from hpctrain.launch.rank_env import find_rank

    rank = find_rank(os.environ)
    on_gpu = device != "cpu" and _has_gpu()
    # On GPUs it is NCCL's, unless Horovod was built without it: then MPI moves the gradients.
    by_nccl = on_gpu and (by != "horovod" or _horovod_has_nccl())
    if by == "gloo" and not on_gpu:
        emit("transport_report", rank=rank.rank, library="gloo", lines=[])
        return  # it knows no other transport than TCP, so there is nothing to try
    with tempfile.TemporaryDirectory(prefix="hpctrain-") as folder:
        path = os.path.join(folder, "report")
        open(path, "w").close()  # a library that has nothing to say makes none
        library = _exchange_by_nccl(path, rank.local_rank) if by_nccl else _exchange_by_mpi(path)
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = telling_lines(file)
    emit("transport_report", rank=rank.rank, library=library, lines=lines)


def _has_gpu() -> bool:
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _horovod_has_nccl() -> bool:
    os.environ.update(MPI_REPORT_VARIABLES)  # MPI comes with it, and UCX reads them on loading
    try:
        import horovod.torch as hvd
    except ImportError:
        return False
    return bool(hvd.nccl_built())


def _exchange_by_nccl(path: str, local_rank: int) -> str:
    os.environ.update(NCCL_REPORT_VARIABLES, NCCL_DEBUG_FILE=path)
    import torch

    from hpctrain.train.comm_torch import TorchCommunicator

    torch.cuda.set_device(local_rank % torch.cuda.device_count())
    communicator = TorchCommunicator(on_gpu=True)
    torch.distributed.all_reduce(torch.ones(NUMEL, device="cuda"))
    torch.cuda.synchronize()
    communicator.barrier()
    communicator.shutdown()
    return "nccl"


def _exchange_by_mpi(path: str) -> str:
    os.environ.update(MPI_REPORT_VARIABLES)
    with _everything_printed_goes_to(path):
        try:
            from mpi4py import MPI
        except ImportError:
            return _exchange_by_horovod()
        MPI.COMM_WORLD.allreduce(1)
        name = MPI.Get_library_version()
        MPI.COMM_WORLD.Barrier()
    return name.split(",")[0].strip()


def _exchange_by_horovod() -> str:
    try:
        import horovod.torch as hvd
        import torch
    except ImportError as missing:
        raise LaunchError(
            f"transport probe: ranks cannot exchange, got neither mpi4py nor Horovod ({missing}); "
            "expected one of them in the ranks' environment."
        ) from missing
    hvd.init()
    hvd.allreduce(torch.ones(1), name="probe")
    hvd.shutdown()
    return "horovod"


@contextmanager
def _everything_printed_goes_to(path: str) -> Iterator[None]:
    """Send what C libraries print, on either stream, into a file."""
    sys.stdout.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for number, _ in kept:
            os.dup2(descriptor, number)
        yield
    finally:
        _flush_c()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
        os.close(descriptor)


def _flush_c() -> None:
    """C's own buffers, which Python does not know: a file's is written only when it is full."""
    import ctypes

    ctypes.CDLL(None).fflush(None)


if __name__ == "__main__":
    sys.exit(main())
