"""The model: its size, its shapes, and that it cannot see the future."""

import sys
import types

import pytest
import tiers

tiers.require("torch")

import torch  # noqa: E402

from hpctrain.config import parse_config  # noqa: E402
from hpctrain.config.schema import ModelConfig  # noqa: E402
from hpctrain.errors import ConfigError  # noqa: E402
from hpctrain.train.choices import ignored_settings  # noqa: E402
from hpctrain.train.model import Transformer, build_model, sum_token_losses  # noqa: E402
from hpctrain.train.own_model import build_own_model  # noqa: E402
from hpctrain.train.positions import POSITIONS  # noqa: E402
from hpctrain.train.presets import (  # noqa: E402
    PRESETS,
    ModelSize,
    count_parameters,
    resolve_model,
)


def make_size(position: str) -> ModelSize:
    return ModelSize(
        d_model=24, num_layers=3, num_heads=4, vocab_size=50, seq_len=12, position=position
    )


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("preset", PRESETS)
def test_parameter_formula_counts_what_the_model_has(preset, position):
    size = resolve_model(ModelConfig(preset=preset, position=position))
    with torch.device("meta"):  # shapes without memory: the largest has 1.3 billion
        model = Transformer(size)
    assert count_parameters(size) == sum(p.numel() for p in model.parameters())


def test_presets_have_the_size_that_they_are_known_by():
    sizes = {name: resolve_model(ModelConfig(preset=name)) for name in PRESETS}
    counts = {name: round(count_parameters(size) / 1e6, 1) for name, size in sizes.items()}
    assert counts == {
        "tiny": 0.8, "small": 124.4, "medium": 354.6, "large": 758.4, "xlarge": 1315.3,
    }  # fmt: skip
    assert sizes["xlarge"].seq_len == 2048
    assert {name: size.vocab_size for name, size in sizes.items()} == {
        "tiny": 256, **dict.fromkeys(("small", "medium", "large", "xlarge"), 50304),
    }  # fmt: skip


def test_recomputed_blocks_give_the_same_gradients():
    plain, recomputing = (build_model(make_size("rope"), seed=0) for _ in range(2))
    recomputing.recomputes_blocks = True
    tokens = torch.randint(50, (2, 13), generator=torch.Generator().manual_seed(0))
    for model in (plain, recomputing):
        sum_token_losses(model(tokens[:, :-1]), tokens[:, 1:]).backward()
    for one, other in zip(plain.parameters(), recomputing.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(
    ("where", "problem"),
    [("own", "not of that form"), ("no_such_module:build", "cannot be loaded: No module"),
     ("json:no_such", "cannot be loaded: module 'json' has no attribute"),
     ("tests_that_return:nothing", "returned something else, got NoneType"),
     ("tests_that_return:frozen", "trained parameters, .* got none"),
     ("tests_that_return:half", "got weight in torch.bfloat16, bias in torch.float32")],
)  # fmt: skip
def test_a_factory_that_cannot_be_used_is_explained(where, problem, monkeypatch):
    module = types.ModuleType("tests_that_return")
    module.nothing = lambda vocab_size, seq_len: None
    module.frozen = lambda vocab_size, seq_len: torch.nn.Linear(2, 2).requires_grad_(False)
    module.half = lambda vocab_size, seq_len: half
    half = torch.nn.Linear(2, 2)
    half.weight.data = half.weight.data.bfloat16()
    monkeypatch.setitem(sys.modules, "tests_that_return", module)
    with pytest.raises(ConfigError, match=f"model.factory: .*{problem}"):
        build_own_model(where, make_size("rope"), seed=0)


@pytest.mark.parametrize("recomputes", [False, True])
def test_recomputed_blocks_run_twice(recomputes, monkeypatch):
    from hpctrain.train.model import Block

    model, runs = build_model(make_size("rope"), seed=0), []
    forward = Block.forward
    monkeypatch.setattr(Block, "forward", lambda self, *x: runs.append(1) or forward(self, *x))
    model.recomputes_blocks = recomputes
    model(torch.zeros(1, 4, dtype=torch.int64)).sum().backward()
    assert len(runs) == len(model.blocks) * (2 if recomputes else 1)


def test_settings_that_a_factory_does_not_get_are_named():
    own = "[model]\nfactory = 'a:b'\nposition = 'rope'\nnum_heads = 2\nseq_len = 64\n"
    config = parse_config(own + "[train]\nactivation_checkpointing = true")
    assert ignored_settings(config) == [
        "model.num_heads", "model.position", "train.activation_checkpointing",
    ]  # fmt: skip
    assert ignored_settings(parse_config("[model]\nposition = 'rope'")) == []


@pytest.mark.parametrize("position", POSITIONS)
def test_scores_do_not_depend_on_later_tokens(position):
    model = build_model(make_size(position), seed=0)
    tokens = torch.arange(12).view(1, 12)
    changed = tokens.clone()
    changed[0, 7:] = 49
    before, after = model(tokens), model(changed)
    assert before.shape == (1, 12, 50)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.mark.parametrize("position", POSITIONS)
def test_order_of_earlier_tokens_matters(position):
    model = build_model(make_size(position), seed=0)
    # Weights as large as a trained model's, so that the effect stands out from rounding.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(10 if parameter.dim() >= 2 else 1)
    one, other = model(torch.tensor([[3, 7, 7, 9]])), model(torch.tensor([[7, 3, 7, 9]]))
    assert not torch.allclose(one[:, -1], other[:, -1], rtol=1e-3, atol=1e-3)


def test_rope_attention_depends_on_distance_alone():
    rope = POSITIONS["rope"](make_size("rope"))
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 6, generator=generator)
    turned_query, turned_key = (
        rope.rotate(query.expand(1, 1, 12, 6)),
        rope.rotate(key.expand(1, 1, 12, 6)),
    )
    products = turned_query[0, 0] @ turned_key[0, 0].T
    for distance in range(-11, 12):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = build_model(make_size("learned"), seed=5)
    torch.manual_seed(2)
    same, other = (build_model(make_size("learned"), seed=seed) for seed in (5, 6))
    for a, b in zip(one.parameters(), same.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.embedding.weight, other.embedding.weight)


def test_untrained_loss_is_that_of_guessing():
    model = build_model(make_size("learned"), seed=0)
    tokens = torch.randint(50, (8, 13), generator=torch.Generator().manual_seed(0))
    loss = sum_token_losses(model(tokens[:, :-1]), tokens[:, 1:]) / (8 * 12)
    assert loss.item() == pytest.approx(torch.tensor(50.0).log().item(), abs=0.1)


def test_every_value_that_does_not_fit_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        resolve_model(ModelConfig(d_model=7, num_heads=3, position="sinusoidal"))
    assert len(caught.value.messages) == 2
    assert "model.num_heads: does not divide model.d_model = 7, got 3" in str(caught.value)
    with pytest.raises(ConfigError, match="rope turns pairs of values, got 3 a head"):
        resolve_model(ModelConfig(d_model=12, num_heads=4, position="rope"))
