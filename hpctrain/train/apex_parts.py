"""NVIDIA's apex, where there is one that still has what is asked for.

`train.precision` = ``apex-O1`` and ``apex-O2`` compute as apex.amp does; loss scaling, the verdict
on overflows, master weights and checkpoints stay the trainer's own, so that they are the same on
all ranks and whatever the precision. Read and tried against apex at the commit before
"remove old features: amp, ddp, and rnn" (github.com/NVIDIA/apex, pull request 1896, 2025-05-08).
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from hpctrain.errors import PlanError

_WHICH = (
    "PyPI's apex is an unrelated package; NVIDIA's is built from its sources "
    "(github.com/NVIDIA/apex)"
)


def load_amp(precision: str, device: torch.device) -> Any:
    """Return the module apex.amp.

    Raises:
        PlanError: it is not there, or the device is none of its; names the built-in equivalent.
    """
    equivalent = "Set train.precision=bf16 (fp16 on GPUs before Ampere), which needs no apex."
    _need_gpu(f"train.precision = {precision!r}", device, equivalent)
    try:
        with warnings.catch_warnings(category=Warning, action="ignore"):  # that it is deprecated
            from apex import amp
    except Exception as problem:  # what the unrelated package raises is anybody's guess
        raise PlanError(
            f"train.precision: apex.amp cannot be loaded: {problem}, got {precision!r}; expected "
            f"fp32, tf32, bf16 or fp16. {_WHICH} and has had no amp since 2025-05-08. {equivalent}"
        ) from problem
    return amp


def load_fused_adam(device: torch.device) -> Callable[..., torch.optim.Optimizer]:
    """Return apex.optimizers.FusedAdam, whose default is AdamW.

    Raises:
        PlanError: it is not there, or the device is none of its; names the built-in equivalent.
    """
    equivalent = "Set optim.implementation=torch: its AdamW is fused as well."
    _need_gpu("optim.implementation = 'apex'", device, equivalent)
    try:
        import amp_C  # noqa: F401  (its kernels; without them the class exists and refuses)
        from apex.optimizers import FusedAdam
    except Exception as problem:
        raise PlanError(
            f"optim.implementation: apex's FusedAdam cannot be loaded: {problem}, got 'apex'; "
            f"expected 'torch', or apex with its CUDA extensions. {_WHICH}. {equivalent}"
        ) from problem
    return FusedAdam


class ApexAmp:
    """A model as apex.amp computes it; the model keeps its fp32 weights."""

    def __init__(self, precision: str, device: torch.device) -> None:
        """
        Args:
            precision: ``apex-O1`` or ``apex-O2``.

        Raises:
            PlanError: see :func:`load_amp`.
        """
        self._amp, self._level = load_amp(precision, device), precision.removeprefix("apex-")

    def adopt(self, model: nn.Module) -> None:
        """Change how `model`, on its GPU, computes.

        O1 casts around torch's functions. O2 computes with weights, inputs and activations in
        fp16, but for batch norms: here on a twin that gets the model's fp32 weights, cast, in
        each forward pass, so that gradients arrive in fp32 at the model itself.
        """
        # Without scaling and optimizers, which the trainer has: apex then does the casts alone.
        options = {"opt_level": self._level, "loss_scale": 1.0, "verbosity": 0}
        if self._level == "O1":
            self._amp.initialize(model, **options)
            return
        twin = self._amp.initialize(copy.deepcopy(model), **options, master_weights=False)
        formats = {name: tensor.dtype for name, tensor in _tensors(twin)}

        def forward(*inputs: Tensor) -> Tensor:
            twin.train(model.training)
            # A batch norm's statistics are fp32 in both, so that it updates the model's own.
            cast = {name: tensor.to(formats[name]) for name, tensor in _tensors(model)}
            return torch.func.functional_call(twin, cast, inputs)

        model.forward = forward

    def backward(self, loss: Tensor) -> None:
        """Run backward, and drop the casts that apex keeps from forward to backward."""
        with self._amp.scale_loss(loss, []) if self._level == "O1" else contextlib.nullcontext():
            loss.backward()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _need_gpu(what: str, device: torch.device, equivalent: str) -> None:
    if device.type != "cuda":
        raise PlanError(f"{what}: apex needs a GPU, got {device}; expected cuda. {equivalent}")
