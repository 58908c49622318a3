"""Data-parallel training as PyTorch's documentation shows it: DistributedDataParallel on gloo."""

import torch
import torch.distributed as dist
from common import CLIP_NORM, Stopwatch, batches, make_model, make_optimizer, mean_loss
from torch.nn.parallel import DistributedDataParallel


def main() -> None:
    dist.init_process_group("gloo")
    # Both options are the documentation's own advice for speed.
    model = DistributedDataParallel(make_model(), gradient_as_bucket_view=True, static_graph=True)
    optimizer = make_optimizer(model)

    stopwatch = Stopwatch()
    for inputs, targets in batches(dist.get_rank()):
        optimizer.zero_grad()
        loss = mean_loss(model(inputs), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        loss.item()  # as a loop that logs would
        stopwatch.lap()
    if dist.get_rank() == 0:
        stopwatch.report()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
