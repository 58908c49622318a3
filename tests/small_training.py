"""The settings of the tests' trainings: small enough to learn something in a second or two."""

from collections.abc import Mapping

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
