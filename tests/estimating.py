"""`hpctrain estimate` as a person calls it, and small trainings whose memory is watched."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from hpctrain.cli import main
from hpctrain.config import parse_config
from hpctrain.estimate.load import RankLoad
from hpctrain.estimate.memory import MemoryEstimate, estimate_memory
from hpctrain.train.presets import resolve_model


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Return the exit code and what is printed on each of the two streams."""
    with pytest.raises(SystemExit) as left:
        main(["estimate", *arguments])
    return (left.value.code, *capsys.readouterr())


def run_json(capsys, *arguments: str) -> tuple[int, dict]:
    """Return the exit code and the JSON."""
    code, out, err = run(capsys, *arguments, "--json")
    assert err == ""
    return code, json.loads(out)


@dataclass(frozen=True)
class Case:
    """A small training. `settings`: section.key=value, besides those that all have."""

    name: str
    batch: int
    accum: int = 1
    precision: str = "fp32"
    ranks: int = 1
    sharded: bool = False
    recomputes: bool = False
    compression: str = "none"
    vocab: int = 256
    settings: tuple[str, ...] = ()

    def config(self, device: str = "cpu"):
        """Return the configuration, two steps of it."""
        overrides = {
            "train.batch_size_per_rank": self.batch, "train.grad_accum_steps": self.accum,
            "train.precision": self.precision, "train.device": device, "train.steps": 2,
            "train.activation_checkpointing": str(self.recomputes).lower(),
            "train.eval_every_steps": 0, "train.eval_sequences": 8,
            "optim.sharded": str(self.sharded).lower(), "comm.backend": "none",
            "comm.exchange": "buckets", "comm.compression": self.compression,
            "checkpoint.save": "off", "model.vocab_size": self.vocab,
            "data.factory": f"estimating:open_tokens_{self.vocab}",
        }  # fmt: skip
        given = [f"{key}={value}" for key, value in overrides.items()]
        return parse_config("", overrides=[*given, *self.settings])

    def estimate(self) -> MemoryEstimate:
        """Return what the estimate says of it."""
        load = RankLoad(
            micro_batch=-(-self.batch // self.accum), sequences=self.batch, ranks=self.ranks,
            precision=self.precision, recomputes=self.recomputes, sharded=self.sharded,
            compression=self.compression,
        )  # fmt: skip
        return estimate_memory(resolve_model(self.config().model), load)


@dataclass
class Tokens:
    """Random tokens, as `data.factory` opens them."""

    samples: int
    seq_len: int
    vocab_size: int

    def __len__(self):
        return self.samples

    def read(self, samples):
        shape = (len(samples), self.seq_len + 1)
        return np.random.default_rng(0).integers(0, self.vocab_size, shape)


def open_tokens_256(split, seq_len):
    return Tokens(512 if split == "train" else 8, seq_len, 256)


def open_tokens_50304(split, seq_len):
    return Tokens(512 if split == "train" else 8, seq_len, 50304)
