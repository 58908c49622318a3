"""Every setting: its type, default, unit, allowed range and meaning.

`docs/configuration.md` is checked against this module by a test, so a new setting is a
deliberate change in both places. Types are strict: ``"3"`` is no number and ``true`` no 1;
only a whole number is also taken where a fraction is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hpctrain.config.constraints import (
        Count,
        CountOrZero,
        Decay,
        NonNegative,
        Part,
        Positive,
    )


DEFAULT_DATA_PATH = "data/stdlib-bytes"
DEFAULT_BATCH_SIZE_PER_RANK = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The transformer. `preset` fills what is not given."""

    preset: Literal["tiny", "small", "medium", "large", "xlarge"] = "tiny"
    """A named size (0.8M, 124M, 354M, 760M, 1.3B parameters); the settings below override it \
one by one."""
    d_model: Count | None = None
    """Width of the residual stream."""
    num_layers: Count | None = None
    """Transformer blocks."""
    num_heads: Count | None = None
    """Attention heads; must divide d_model."""
    vocab_size: Count | None = None
    """Tokens that the embedding knows."""
    seq_len: Count | None = None
    """Tokens in one training sequence."""
    position: Literal["learned", "sinusoidal", "rope"] = "learned"
    """Position encoding."""
    factory: str | None = None
    """`module:function` that builds a model of your own from vocab_size and seq_len."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """Where the tokens come from."""

    path: str = DEFAULT_DATA_PATH
    """Folder that `hpctrain data prepare` wrote."""
    mixture: Mapping[str, Positive] = field(default_factory=lambda: MappingProxyType({}))
    """Several such folders in place of data.path, each with its weight: its part of the samples."""
    factory: str | None = None
    """`module:function` that opens a source of samples of your own from split and seq_len."""
    tokenizer: str | None = None
    """Expected tokenizer; checked against the prepared data. Empty: whatever the data says."""

    def problems(self) -> list[str]:
        """Return what no single value can show to be wrong."""
        given = {
            "path": self.path != DEFAULT_DATA_PATH,
            "mixture": bool(self.mixture),
            "factory": self.factory is not None,
        }
        names = [name for name, is_given in given.items() if is_given]
        if len(names) < 2:
            return []
        return [f"{' and '.join(names)} are given together; expected one of them"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """The loop."""

    steps: Count = 300
    """Optimizer steps of the whole run; the learning rate falls until the last one."""
    tokens: Count | None = None
    """The same in tokens, rounded up to whole steps; in place of train.steps."""
    global_batch_size: Count | None = None
    """Sequences an optimizer step, over all ranks. Give this or batch_size_per_rank."""
    batch_size_per_rank: Count | None = None
    """Sequences an optimizer step on each rank (8 where neither is given)."""
    grad_accum_steps: Count = 1
    """Forward and backward passes that a step's sequences are split into on each rank."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "apex-O1", "apex-O2"] = "fp32"
    """Number format of matrix products; weights and gradients are fp32 always. `apex-O1` and \
`apex-O2` need an apex from before May 2025."""
    on_nan: Literal["stop", "skip"] = "stop"
    """What a loss or gradient that is not a number does: end the run, or leave the update out."""
    activation_checkpointing: bool = False
    """Compute each block again in backward, in place of keeping its activations."""
    compile: bool = False
    """Compile each block by torch.compile; on a CPU it needs a C++ compiler."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the rank's GPU where there is one. `cpu` also counts cores as local slots."""
    seed: CountOrZero = 1234
    """Seed of initial weights and sample order."""
    eval_every_steps: CountOrZero = 100
    """Steps between validation losses; 0 for only at the end."""
    eval_sequences: Count = 64
    """Sequences in one validation loss, over all ranks."""
    log_every_steps: Count = 1
    """Steps between step events."""

    def problems(self) -> list[str]:
        """Return what no single value can show to be wrong."""
        if self.global_batch_size is None or self.batch_size_per_rank is None:
            return []
        return [
            f"global_batch_size = {self.global_batch_size} and batch_size_per_rank = "
            f"{self.batch_size_per_rank} are both given; expected one of them"
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimConfig:
    """AdamW, its schedule and its limits."""

    lr: Positive = 1e-3
    """Peak learning rate."""
    min_lr_ratio: Part = 0.1
    """Learning rate at the end of the cosine, as a part of the peak."""
    lr_scaling: Literal["none", "linear", "sqrt"] = "none"
    """What lr is multiplied by: 1, the number of ranks, or its square root. lr then is that of \
one rank's batch."""
    warmup_steps: CountOrZero = 20
    """Steps of linear warm-up."""
    warmup_tokens: Count | None = None
    """The same in tokens, rounded up to whole steps; in place of warmup_steps."""
    weight_decay: NonNegative = 0.1
    """AdamW's decoupled weight decay, on matrices only."""
    beta1: Decay = 0.9
    """AdamW's decay of the first moment."""
    beta2: Decay = 0.95
    """AdamW's decay of the second moment."""
    implementation: Literal["torch", "apex"] = "torch"
    """torch's AdamW, fused where the device has it, or apex's FusedAdam."""
    sharded: bool = False
    """Keep 1/n of the optimizer's state on each of n ranks (ZeRO stage 1)."""
    clip_norm: NonNegative = 1.0
    """Largest global gradient norm; 0 for no clipping."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CommConfig:
    """How gradients are exchanged."""

    backend: Literal["horovod", "ddp", "none"] = "horovod"
    """`ddp` is torch.distributed, started by the same mpirun; `none` is for one rank."""
    exchange: Literal["auto", "buckets", "native"] = "auto"
    """`buckets`: our own; `native`: hvd.DistributedOptimizer or DistributedDataParallel. \
`auto` is `native` with ddp, else `buckets`."""
    bucket_mb: Positive = 25.0
    """Size of a flat gradient bucket (MiB)."""
    compression: Literal["none", "fp16", "bf16"] = "none"
    """Number format of gradients on their way; Horovod has no bf16."""

    def problems(self) -> list[str]:
        """Return what no single value can show to be wrong."""
        if self.compression != "bf16" or self.backend != "horovod":
            return []
        return [
            "compression = 'bf16' with backend = 'horovod', which cannot sum bf16; expected "
            "compression = 'fp16' or 'none', or backend = 'ddp'"
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """What a run can go on from, in the run directory's checkpoints/."""

    save: Literal["on", "off"] = "on"
    """`off` writes none."""
    every_steps: CountOrZero = 1000
    """Steps between checkpoints; the last step always has one. 0 for only that one."""
    keep_last: Count = 3
    """The newest so many are kept."""
    keep_every_steps: CountOrZero = 0
    """Those whose step is a multiple of this are kept for good; 0 for none."""
    resume: str = "auto"
    """Where to go on: `auto` (the run's newest that is whole), `none` (step 0), or a folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchConfig:
    """How ranks are started."""

    np: Count | None = None
    """Ranks; all slots where not given. `--np` overrides."""
    hosts: str | None = None
    """Hostfile, relative to where hpctrain runs. `--hosts` overrides."""
    mpirun: str | None = None
    """The launcher to use, in place of the one that preflight names."""
    env: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables for every rank."""
    forward: tuple[str, ...] = ()
    """Further variables of this shell that remote ranks get; `*` at the end of a name matches."""
    mpirun_args: tuple[str, ...] = ()
    """Further words for mpirun, as they stand, behind our own."""
    subnet: str | None = None
    """Network (CIDR) for MPI's and hpctrain's own traffic, in place of the one chosen."""
    threads_per_rank: Count | None = None
    """OMP_NUM_THREADS of each rank; else each host's cores shared among its ranks."""
    require_transport: Literal["none", "ib", "efa", "tcpx", "socket", "nvlink"] = "none"
    """What must carry the gradients: a short exchange proves it first, or nothing starts."""
    start_timeout_s: Positive = 120.0
    """Longest time until every rank has reported (s)."""
    grace_s: Positive = 5.0
    """Time that ranks get between SIGTERM and SIGKILL when a run ends early (s)."""
    hang_timeout_s: Positive | None = None
    """Standstill of all ranks that counts as a hang (s); by default ten times the longest so far, \
30 at least."""
    cut_off_s: Positive = 60.0
    """Time after which ranks end that are cut off from the launcher's host (s)."""
    save_timeout_s: Positive = 60.0
    """Longest time that ranks get to save and leave after a scheduler's signal (s)."""
    max_restarts: CountOrZero = 0
    """Times that a run which failed is started again. `--max-restarts` overrides."""
    spares: CountOrZero | tuple[str, ...] = 0
    """Hosts that take no rank until others fail: how many of the last, or their names. `--spares` \
overrides."""
    min_np: Count | None = None
    """Fewest ranks to go on with when hosts are lost; as many as at first where not given. \
`--min-np` overrides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All of it: the content of a run's `run.toml`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    comm: CommConfig = field(default_factory=CommConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
