"""Formats of the computation, and which steps' updates are taken."""

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.errors import TrainingError  # noqa: E402
from hpctrain.train.optimizer import clip_by_global_norm  # noqa: E402
from hpctrain.train.precision import Precision, StepGuard  # noqa: E402

CPU = torch.device("cpu")
GOOD, INFINITE, NAN = (torch.tensor(value) for value in (1.0, float("inf"), float("nan")))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16),
     ("fp16", torch.float16)],
)  # fmt: skip
def test_products_are_computed_in_the_format_and_weights_stay_fp32(name, dtype):
    layer = torch.nn.Linear(4, 4)
    with Precision(name, CPU).autocast():
        out = layer(torch.ones(2, 4))
    out.sum().backward()
    assert out.dtype == dtype
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.float32


def test_a_format_that_the_device_ignores_is_named():
    assert Precision("tf32", CPU).warning == (
        "train.precision = tf32 is ignored on cpu: it computes in fp32"
    )
    assert Precision("bf16", CPU).warning == ""


def test_the_scale_halves_at_an_overflow_and_doubles_after_2000_good_steps():
    guard = StepGuard("fp16", "stop")
    assert not guard.admits(1, GOOD, INFINITE)
    assert (guard.scale, guard.skipped_steps) == (32768.0, 1)
    for step in range(2000):
        assert guard.scale == 32768.0
        assert guard.admits(2 + step, GOOD, GOOD)
    assert guard.scale == 65536.0


def test_a_restarted_guard_goes_on_with_scale_and_count():
    guard, other = StepGuard("fp16", "stop"), StepGuard("fp16", "stop")
    for step in range(3):
        guard.admits(step, GOOD, NAN if step == 1 else GOOD)
    other.load_state_dict(guard.state_dict())
    assert other.state_dict() == guard.state_dict() == {
        "scale": 32768.0, "good_steps": 1, "skipped_steps": 1,
    }  # fmt: skip


def test_overflow_without_scaling_left_stops_or_is_skipped():
    guard = StepGuard("fp16", "stop")
    for step in range(16):
        assert not guard.admits(step, GOOD, INFINITE)
    with pytest.raises(TrainingError, match="step 17: gradients overflow fp16 without any"):
        guard.admits(17, GOOD, INFINITE)
    patient = StepGuard("fp16", "skip")
    assert not any(patient.admits(step, GOOD, INFINITE) for step in range(20))
    assert (patient.scale, patient.skipped_steps) == (1.0, 20)


def test_without_skipping_the_host_does_not_wait_for_the_norm():
    assert StepGuard("fp32", "stop").admits(1, NAN, NAN)
    skipping = StepGuard("fp32", "skip")
    assert skipping.admits(1, GOOD, GOOD)
    assert not skipping.admits(2, NAN, GOOD)
    assert not skipping.admits(3, GOOD, INFINITE)
    assert (skipping.skipped_steps, skipping.loss_scale) == (2, None)


@pytest.mark.parametrize(("limit", "expected"), [(0.0, [3.0, 4.0]), (1.0, [0.6, 0.8])])
def test_clipping_takes_the_loss_scale_out(limit, expected):
    gradients = [torch.tensor([3.0, 4.0]) * 1024]
    assert clip_by_global_norm(gradients, limit, 1024.0).item() == pytest.approx(5.0)
    assert gradients[0].tolist() == pytest.approx(expected, rel=1e-5)
