"""Data-parallel training as Horovod's documentation shows it: DistributedOptimizer."""

import horovod.torch as hvd
import torch
from common import CLIP_NORM, Stopwatch, batches, make_model, make_optimizer, mean_loss


def main() -> None:
    hvd.init()
    model = make_model()
    optimizer = make_optimizer(model)
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())

    stopwatch = Stopwatch()
    for inputs, targets in batches(hvd.rank()):
        optimizer.zero_grad()
        loss = mean_loss(model(inputs), targets)
        loss.backward()
        optimizer.synchronize()  # clipping needs the averaged gradients
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        with optimizer.skip_synchronize():
            optimizer.step()
        loss.item()  # as a loop that logs would
        stopwatch.lap()
    if hvd.rank() == 0:
        stopwatch.report()
    hvd.shutdown()


if __name__ == "__main__":
    main()
