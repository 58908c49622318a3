"""The settings of the tests' trainings: small enough to learn something in a second or two."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SETTINGS = {
    "model.d_model": 32,
    "model.num_layers": 2,
    "model.seq_len": 32,
    "train.steps": 20,
    "train.global_batch_size": 7,  # unequal shares on two ranks and on three
    "train.eval_every_steps": 0,
    "train.eval_sequences": 5,
    "train.device": "cpu",
    "optim.lr": 1e-2,
    "optim.warmup_steps": 5,
    "comm.bucket_mb": 0.05,
}


def as_options(settings: Mapping[str, object]) -> list[str]:
    """Return the words of a command line that mean these settings."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def prepare_data(folder: Path) -> Path:
    """Make the data that such a training reads, and return its folder."""
    text = folder / "text.txt"
    text.write_text("All work and no play makes a small model a dull model. " * 400)
    argv = [sys.executable, "-m", "hpctrain", "data", "prepare", "--source", str(text)]
    argv += ["--validation-fraction", "0.1", "--out", str(folder / "data")]
    subprocess.run(argv, check=True, capture_output=True)
    return folder / "data"
