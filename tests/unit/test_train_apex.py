"""apex: what is said without it, and how it is used where it is.

apex.amp takes models on a GPU only, so what computes here is a stand-in with the surface of
apex.amp that the trainer touches, made after its code (NVIDIA/apex before pull request 1896):
`initialize` casts an O2 model and its inputs in place, `scale_loss` drops O1's cache of casts.
"""

import contextlib
import sys
import types

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.config import parse_config  # noqa: E402
from hpctrain.config.schema import OptimConfig  # noqa: E402
from hpctrain.errors import ConfigError, PlanError  # noqa: E402
from hpctrain.train.apex_parts import ApexAmp, load_amp, load_fused_adam  # noqa: E402
from hpctrain.train.buckets import Piece  # noqa: E402
from hpctrain.train.model import build_model, sum_token_losses  # noqa: E402
from hpctrain.train.optimizer import make_optimizer  # noqa: E402
from hpctrain.train.precision import Precision, StepGuard  # noqa: E402
from hpctrain.train.presets import ModelSize  # noqa: E402
from hpctrain.train.state import optimizer_step, set_optimizer_step  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SIZE = ModelSize(
    d_model=32, num_layers=2, num_heads=2, vocab_size=64, seq_len=16, position="learned"
)


@pytest.fixture
def no_apex(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)


@pytest.fixture
def unrelated_apex(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", types.ModuleType("apex"))


@pytest.fixture
def stand_in(monkeypatch):
    """An apex with amp and FusedAdam; returns what was asked of amp."""
    apex, amp = types.ModuleType("apex"), types.ModuleType("apex.amp")
    optimizers, asked = types.ModuleType("apex.optimizers"), []

    def initialize(model, *, opt_level, loss_scale, verbosity, master_weights=None):
        asked.append((opt_level, loss_scale, master_weights))
        if opt_level == "O2":
            for module in model.modules():
                if not list(module.children()) and not isinstance(module, torch.nn.BatchNorm1d):
                    module.half()
            inner = model.forward
            model.forward = lambda x: inner(x.half() if x.is_floating_point() else x).float()
        return model

    @contextlib.contextmanager
    def scale_loss(loss, optimizers):
        assert optimizers == []
        yield loss.float()
        asked.append("cache dropped")

    class FusedAdam(torch.optim.AdamW):
        """Counts its steps in its groups."""

        def step(self):
            super().step()
            for group in self.param_groups:
                group["step"] = group.get("step", 0) + 1
            for state in self.state.values():
                state["step"] = torch.zeros(())

    amp.initialize, amp.scale_loss, optimizers.FusedAdam = initialize, scale_loss, FusedAdam
    apex.amp, apex.optimizers = amp, optimizers
    for module in (apex, amp, optimizers, types.ModuleType("amp_C")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return asked


@pytest.mark.parametrize("fixture", ["no_apex", "unrelated_apex"])
def test_without_apex_the_error_names_what_is_built_in(request, fixture):
    request.getfixturevalue(fixture)
    with pytest.raises(PlanError) as caught:
        load_amp("apex-O2", CUDA)
    (message,) = caught.value.messages
    assert message.startswith("train.precision: apex.amp cannot be loaded: ")
    assert "PyPI's apex is an unrelated package" in message
    assert "Set train.precision=bf16 (fp16 on GPUs before Ampere)" in message
    with pytest.raises(PlanError, match=r"FusedAdam cannot be loaded: .*implementation=torch"):
        load_fused_adam(CUDA)


def test_without_a_gpu_it_is_refused_first(stand_in):
    with pytest.raises(PlanError, match=r"'apex-O1': apex needs a GPU, got cpu; .*precision=bf16"):
        Precision("apex-O1", CPU)
    with pytest.raises(PlanError, match=r"apex needs a GPU, got cpu; .*implementation=torch"):
        load_fused_adam(CPU)


def train(model, apex=None, steps=8):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens = torch.randint(64, (4, 17), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(steps):
        loss = sum_token_losses(model(tokens[:, :-1]), tokens[:, 1:]) / 64
        apex.backward(loss) if apex else loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_o2_computes_on_a_cast_twin_and_keeps_the_weights(stand_in):
    plain, model = build_model(SIZE, seed=1), build_model(SIZE, seed=1)
    names = [name for name, _ in model.named_parameters()]
    apex = ApexAmp("apex-O2", CUDA)
    apex.adopt(model)
    expected, losses = train(plain), train(model, apex)
    assert losses == pytest.approx(expected, rel=1e-2)
    assert losses != pytest.approx(expected, rel=1e-7)
    assert losses[-1] < losses[0] - 0.5
    assert [name for name, _ in model.named_parameters()] == names
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert stand_in == [("O2", 1.0, False)]


def test_o2_and_blocks_computed_again_exclude_each_other():
    from hpctrain.train.choices import check_recomputing

    both = "[train]\nprecision = 'apex-O2'\nactivation_checkpointing = true"
    with pytest.raises(ConfigError, match="apex-O2 has put back"):
        check_recomputing(parse_config(both).train)


def test_o2_keeps_a_batch_norms_statistics_in_the_model(stand_in):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    apex = ApexAmp("apex-O2", CUDA)
    apex.adopt(model)
    model(torch.randn(5, 3) + 10)
    assert model[1].num_batches_tracked == 1


def test_o1_drops_its_casts_after_each_backward(stand_in):
    model = build_model(SIZE, seed=1)
    apex = ApexAmp("apex-O1", CUDA)
    apex.adopt(model)
    assert train(model, apex, steps=2) == train(build_model(SIZE, seed=1), steps=2)
    assert stand_in == [("O1", 1.0, None), "cache dropped", "cache dropped"]


@pytest.mark.parametrize("precision", ["apex-O1", "apex-O2"])
def test_the_loss_is_scaled_as_in_fp16(precision):
    config = parse_config(f"[train]\nprecision = '{precision}'")
    assert StepGuard(config.train.precision, "stop").scale == 65536.0


def test_steps_of_fused_adam_go_on_after_a_resume(stand_in, monkeypatch):
    monkeypatch.setattr("hpctrain.train.apex_parts._need_gpu", lambda *arguments: None)
    weight = torch.nn.Parameter(torch.ones(4))
    weight.grad = torch.ones(4)
    pieces = [Piece(weight, True, ())]
    optimizer = make_optimizer(pieces, OptimConfig(implementation="apex"))
    assert type(optimizer).__name__ == "FusedAdam"
    assert optimizer_step(optimizer) == 0
    optimizer.step()
    optimizer.step()
    assert optimizer_step(optimizer) == 2
    set_optimizer_step(optimizer, 7)
    assert optimizer_step(optimizer) == 7
    optimizer.step()
    assert optimizer_step(optimizer) == 8
