"""Number formats of the computation, and what guards a step against numbers out of range.

Weights, gradients and the optimizer are fp32 always; matrix products are computed in the
format of `train.precision`.
"""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from hpctrain.errors import PlanError, TrainingError
from hpctrain.train.apex_parts import ApexAmp

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """One number format on one device."""

    def __init__(self, name: str, device: torch.device) -> None:
        """Switch the device to the format.

        Raises:
            PlanError: the device cannot compute in it.
        """
        self.name = name
        self.warning = ""
        """What is wrong with the choice, where it can be lived with."""
        self._device = device
        self._dtype = _AUTOCAST.get(name)
        self._apex = ApexAmp(name, device) if name.startswith("apex-") else None
        if device.type == "cuda":
            # "high" is TF32 (torch.set_float32_matmul_precision); GPUs before Ampere ignore it.
            torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
            if name == "bf16" and torch.cuda.get_device_capability(device) < (8, 0):
                raise PlanError(
                    "train.precision: this GPU has no bf16, got "
                    f"{torch.cuda.get_device_name(device)}; expected one of the Ampere generation "
                    "or later. Set train.precision=fp16."
                )
        if name == "tf32" and (
            device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)
        ):
            self.warning = f"train.precision = tf32 is ignored on {device}: it computes in fp32"

    def adopt(self, model: nn.Module) -> None:
        """Prepare a model that is on its device."""
        if self._apex is not None:
            self._apex.adopt(model)

    def backward(self, loss: Tensor) -> None:
        """Run backward from a loss that is scaled already."""
        if self._apex is not None:
            self._apex.backward(loss)
        else:
            loss.backward()

    def autocast(self) -> AbstractContextManager[Any]:
        """Wrap forward passes."""
        enabled = self._dtype is not None
        return torch.autocast(self._device.type, dtype=self._dtype, enabled=enabled)


class StepGuard:
    """Scales the loss in fp16, and decides whether a step's update is taken.

    It decides by the global loss and the global gradient norm alone. A sum over ranks holds an
    infinity or NaN on all of them as soon as one rank puts it in, so all decide alike, without
    an exchange of its own.

    The scale starts at 2^16, halves at an overflow and doubles after 2000 steps without one:
    the defaults of torch.amp.GradScaler (torch 2.13), which goes by each rank's own gradients.
    """

    GROWTH_INTERVAL_STEPS = 2000

    def __init__(self, precision: str, on_nan: str) -> None:
        """
        Args:
            on_nan: `stop` or `skip`, as in `train.on_nan`.
        """
        computes_in_fp16 = precision == "fp16" or precision.startswith("apex-")
        self._scales, self._skips = computes_in_fp16, on_nan == "skip"
        self.scale = 65536.0 if self._scales else 1.0
        self.skipped_steps = 0
        """Steps so far whose update was left out."""
        self._good_steps = 0

    @property
    def loss_scale(self) -> float | None:
        """What events report: None where the loss is not scaled."""
        return self.scale if self._scales else None

    def admits(self, step: int, loss: Tensor, norm: Tensor) -> bool:
        """Return whether the update of `step` (counted from 1) may be applied.

        The host waits for the device only where it has to decide: in fp16, or to skip.

        Args:
            loss: global loss, (1,).
            norm: global gradient norm, ().

        Raises:
            TrainingError: fp16 gradients overflow at any scale, and `on_nan` is `stop`.
        """
        if not self._scales and not self._skips:
            return True
        loss_value, norm_value = loss.item(), norm.item()
        if math.isfinite(loss_value) and math.isfinite(norm_value):
            self._grow()
            return True
        self.skipped_steps += 1
        self._good_steps = 0
        if math.isfinite(loss_value) and self.scale > 1:
            self.scale /= 2
        elif math.isfinite(loss_value) and not self._skips:
            raise TrainingError(
                f"step {step}: gradients overflow fp16 without any scaling of the loss, got norm "
                f"{norm_value}. Set train.precision=bf16, or lower optim.lr."
            )
        return False

    def state_dict(self) -> dict[str, float | int]:
        """Return what a checkpoint must hold."""
        return {
            "scale": self.scale,
            "good_steps": self._good_steps,
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: dict[str, float | int]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        if self._scales:
            self.scale = float(state["scale"])
        self._good_steps = int(state["good_steps"])
        self.skipped_steps = int(state["skipped_steps"])

    def _grow(self) -> None:
        self._good_steps += 1
        if self._scales and self._good_steps == self.GROWTH_INTERVAL_STEPS:
            self.scale *= 2
            self._good_steps = 0
