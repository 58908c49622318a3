"""A training whose memory is watched by torch's profiler: as a function, and as one rank's program.

The profiler sees every allocation and release of tensor memory, kernels' own scratch included,
from before the model is built until the run ends.
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]  # as a program

from torch.profiler import ProfilerActivity, profile  # noqa: E402

from hpctrain.train.communicator import Communicator, open_communicator  # noqa: E402
from hpctrain.train.loop import run_training  # noqa: E402


def true_peak_bytes(config, comm: Communicator) -> int:
    """Return the most that tensors took at once while a configuration was trained."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watch:
        run_training(config, comm)
    events = [e for e in watch.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


if __name__ == "__main__":
    from estimating import Case

    ranks = open_communicator("horovod", "cpu")
    try:
        peak = true_peak_bytes(Case(**json.loads(sys.argv[1])).config(), ranks)
        print(f"peak {peak}", flush=True)
        ranks.barrier()
    finally:
        ranks.shutdown()
