"""The sizes of the models, by name, and how many parameters they have. No torch here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from hpctrain.config.schema import ModelConfig
from hpctrain.errors import ConfigError, raise_all


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSize:
    """A model's shape, every value known."""

    d_model: int
    num_layers: int
    num_heads: int
    vocab_size: int
    seq_len: int
    position: str

    @property
    def head_dim(self) -> int:
        return self.d_model // self.num_heads


VOCAB_MULTIPLE = 128
# GPT-2's tokenizer has 50257 tokens; a multiple of 128 keeps the largest matrix product on the
# fast path of GPUs (nanoGPT does the same), and the rows that no token uses cost 0.1 %.
GPT2_VOCAB = 50304

PRESETS: dict[str, dict[str, int]] = {
    # Bytes as tokens, and small enough that two CPU cores learn something in half a minute.
    "tiny": {"d_model": 128, "num_layers": 4, "num_heads": 4, "vocab_size": 256, "seq_len": 128},
    # GPT-2 small and medium (Radford et al. 2019, table 2).
    "small": {"d_model": 768, "num_layers": 12, "num_heads": 12,
              "vocab_size": GPT2_VOCAB, "seq_len": 1024},
    "medium": {"d_model": 1024, "num_layers": 24, "num_heads": 16,
               "vocab_size": GPT2_VOCAB, "seq_len": 1024},
    # GPT-3 Large and XL (Brown et al. 2020, table 2.1); XL with 16 heads, for the 24 of 128
    # values that stand there do not make up d_model.
    "large": {"d_model": 1536, "num_layers": 24, "num_heads": 16,
              "vocab_size": GPT2_VOCAB, "seq_len": 1024},
    "xlarge": {"d_model": 2048, "num_layers": 24, "num_heads": 16,
               "vocab_size": GPT2_VOCAB, "seq_len": 2048},
}  # fmt: skip


def resolve_model(config: ModelConfig) -> ModelSize:
    """Return the preset's shape with what the configuration overrides.

    Raises:
        ConfigError: naming every value that does not go with the others.
    """
    given = {key: value for key, value in dataclasses.asdict(config).items() if value is not None}
    preset = given.pop("preset")
    given.pop("factory", None)
    size = ModelSize(**{**PRESETS[preset], **given})
    errors = []
    if size.d_model % size.num_heads:
        errors.append(
            f"model.num_heads: does not divide model.d_model = {size.d_model}, "
            f"got {size.num_heads}; expected e.g. {_divisor_near(size.d_model, size.num_heads)}."
        )
    elif size.position == "rope" and size.head_dim % 2:
        errors.append(
            f"model.num_heads: rope turns pairs of values, got {size.head_dim} a head "
            f"(d_model {size.d_model} / num_heads {size.num_heads}); expected an even number."
        )
    if size.position == "sinusoidal" and size.d_model % 2:
        errors.append(
            f"model.d_model: sinusoidal takes pairs of values, got {size.d_model}; "
            "expected an even number."
        )
    raise_all(ConfigError, errors)
    return size


def fits_vocabulary(tokenizer_size: int, model_size: int) -> bool:
    """Return whether a tokenizer's tokens fit the model: exactly, or padded to a multiple of 128.

    >>> fits_vocabulary(50257, GPT2_VOCAB), fits_vocabulary(256, GPT2_VOCAB)
    (True, False)
    """
    padded = -(-tokenizer_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    return model_size in (tokenizer_size, padded)


def count_parameters(size: ModelSize) -> int:
    """Return the number of trained parameters.

    Embedding (shared with the output) V·d, learned positions s·d, and in each layer attention
    4·d², feed-forward 8·d² and two norms 2·d; a last norm d. No biases.

    >>> tiny = PRESETS["tiny"]
    >>> count_parameters(ModelSize(**tiny, position="rope"))
    820352
    """
    d = size.d_model
    learned_positions = size.seq_len * d if size.position == "learned" else 0
    per_layer = 12 * d * d + 2 * d
    return size.vocab_size * d + learned_positions + size.num_layers * per_layer + d


def _divisor_near(d_model: int, num_heads: int) -> int:
    divisors = [n for n in range(1, d_model + 1) if d_model % n == 0]
    return min(divisors, key=lambda n: abs(n - num_heads))
