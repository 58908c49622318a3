"""What will a run need of memory, disk and time? The estimate, for the ranks that are asked."""

from __future__ import annotations

from dataclasses import dataclass

from hpctrain.config import Config
from hpctrain.config.schema import DEFAULT_BATCH_SIZE_PER_RANK
from hpctrain.errors import ConfigError
from hpctrain.estimate.memory import estimate_memory
from hpctrain.estimate.model import cost_model
from hpctrain.estimate.speed import Job, job_of
from hpctrain.train.presets import resolve_model

# Python with torch and Horovod, beside all tensors: docs/preflight.md says how it was measured.
PROCESS_BYTES = 4 * 10**8
# With CUDA, its libraries and pinned buffers are mapped as well (assumption; Bekman, Machine
# Learning Engineering, "Anatomy of model's memory usage", has 1 to 3 GB of CPU memory a process).
CUDA_PROCESS_BYTES = 2 * 10**9


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNeed:
    """What a training needs, by its configuration alone.

    Args:
        peak_bytes: tensors of one rank at its fullest moment; `at_most_bytes` and `needed_bytes`
            on a GPU, with what CUDA takes (hpctrain.estimate.memory).
        snapshot_bytes: one rank's copy of its share in main memory, for checkpoints.
        checkpoint_bytes: of one checkpoint, all ranks' shares together.
        checkpoints: that lie there at once at most; 0 where none is written.
        job: for how long it will take.
    """

    peak_bytes: float
    needed_bytes: float
    at_most_bytes: float
    snapshot_bytes: float
    checkpoint_bytes: float
    checkpoints: int
    job: Job

    def host_bytes(self, ranks: int, *, on_gpu: bool) -> float:
        """Return the main memory that so many ranks of one host need."""
        each = CUDA_PROCESS_BYTES if on_gpu else PROCESS_BYTES + self.peak_bytes
        return ranks * (each + self.snapshot_bytes)

    @property
    def disk_bytes(self) -> float:
        """Return the disk that checkpoints take at most."""
        return self.checkpoints * self.checkpoint_bytes


def plan_need(config: Config, np: int) -> RunNeed:
    """Return what a training on so many ranks needs.

    Raises:
        ConfigError: the model is one's own, its settings do not go together, or there are fewer
            sequences than ranks.
    """
    if config.model.factory is not None:
        raise ConfigError(
            "model.factory: a model of your own has no shape that could be counted, got "
            f"{config.model.factory!r}; expected a preset. Its memory is not checked."
        )
    size = resolve_model(config.model)
    job = job_of(config, size, 1, DEFAULT_BATCH_SIZE_PER_RANK)
    tokens = config.train.tokens or config.train.steps * job.tokens_per_step(np)
    job = job_of(config, size, tokens, DEFAULT_BATCH_SIZE_PER_RANK)
    memory = estimate_memory(size, job.load(np))
    cost = cost_model(size)
    saves = config.checkpoint.save == "on"
    steps = -(-tokens // job.tokens_per_step(np))
    return RunNeed(
        peak_bytes=memory.peak_bytes,
        needed_bytes=memory.needed_bytes,
        at_most_bytes=memory.at_most_bytes,
        snapshot_bytes=cost.checkpoint_bytes / np if saves else 0.0,
        checkpoint_bytes=cost.checkpoint_bytes,
        checkpoints=_most_checkpoints(config, steps) if saves else 0,
        job=job,
    )


def _most_checkpoints(config: Config, steps: int) -> int:
    """Return how many lie there while one more is written."""
    kept = config.checkpoint
    every = kept.every_steps or steps
    written = steps // every + (steps % every > 0)
    for_good = steps // kept.keep_every_steps if kept.keep_every_steps else 0
    return min(kept.keep_last + 1 + for_good, written)
