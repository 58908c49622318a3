"""What was typed about the job → configuration and job, every error kept until all are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from hpctrain.config import Config, load_config
from hpctrain.config.schema import DEFAULT_BATCH_SIZE_PER_RANK
from hpctrain.errors import EXIT_USAGE, ConfigError, HpctrainError, raise_all
from hpctrain.estimate.gpus import Gpu
from hpctrain.estimate.quantities import parse_count
from hpctrain.estimate.speed import Job, job_of
from hpctrain.recipes import find_recipe
from hpctrain.train.presets import PRESETS, resolve_model

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What was typed, as it stands; None where it was not."""

    model: str | None = None
    config_name: str | None = None
    overrides: tuple[str, ...] = ()
    tokens: str | None = None
    precision: str | None = None
    global_batch: str | None = None
    accum: int | None = None
    gpu: str | None = None
    gpus: int | None = None
    gpus_per_node: int | None = None
    instance: str | None = None
    link: str | None = None
    intra_link: str | None = None
    mfu: str | None = None
    deadline: str | None = None
    budget: str | None = None
    tokens_per_s: str | None = None
    efficiency: str | None = None
    usd_per_gpu_hour: str | None = None
    storage: str | None = None
    prices: Path | None = None
    runs_dir: Path | None = None


@dataclass(slots=True)
class Errors:
    """Collects what goes wrong, so that it is told all at once."""

    messages: list[str] = field(default_factory=list)

    def attempt(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """Return what a function returns; None where what was asked is wrong, which is kept."""
        try:
            return function(*arguments)
        except HpctrainError as problem:
            if problem.exit_code != EXIT_USAGE:
                raise
            self.messages += problem.messages
            return None

    def optional(self, parse: Callable[[str, str], T], text: str | None, where: str) -> T | None:
        """Return a parsed option; None where it was not given, or is wrong."""
        return None if text is None else self.attempt(parse, text, where)

    def raise_all(self) -> None:
        """Raise one error with all messages, or return."""
        raise_all(ConfigError, list(dict.fromkeys(self.messages)))


def read_config(asked: Asked, gpu: Gpu | None) -> Config:
    """Return the configuration that file, preset and options come to.

    Raises:
        ConfigError: neither or both of --model and --config, or a setting is wrong.
    """
    errors = []
    if (asked.model is None) == (asked.config_name is None):
        got = "neither" if asked.model is None else "both"
        errors.append(
            f"--model, --config: got {got}; expected one of them: a size ({', '.join(PRESETS)}) or "
            "a configuration file. Write e.g. --model xlarge."
        )
    overrides = list(asked.overrides)
    if asked.model is not None:
        overrides.append(f"model.preset={asked.model}")
    set_here = {override.partition("=")[0].strip() for override in asked.overrides}
    precision = asked.precision
    if precision is None and asked.config_name is None and "train.precision" not in set_here:
        precision = gpu.best_precision if gpu else None
    if precision is not None:
        overrides.append(f"train.precision={precision}")
    if asked.accum is not None:
        overrides.append(f"train.grad_accum_steps={min(asked.accum, 10**9)}")
    raise_all(ConfigError, errors)
    path = find_recipe(asked.config_name) if asked.config_name else None
    try:
        config = load_config(path, overrides)
    except ConfigError as problem:
        raise ConfigError(*(_as_typed(message, asked) for message in problem.messages)) from None
    if config.model.factory is not None:
        raise ConfigError(
            f"model.factory: a model of your own has no shape that could be counted, got "
            f"{config.model.factory!r}; expected a preset or model.d_model and its like."
        )
    return config


def read_job(asked: Asked, config: Config, gpus: int | None = None) -> Job:
    """Return the job, its tokens from the options or else from the configuration.

    Args:
        gpus: how many there are; None where that is not known.

    Raises:
        ConfigError: no tokens, or a batch that is no whole number of sequences.
    """
    errors = Errors()
    size = errors.attempt(resolve_model, config.model)
    tokens = errors.optional(parse_count, asked.tokens, "--tokens")
    if asked.tokens is None and config.train.tokens is None and asked.config_name is None:
        errors.messages.append(
            "--tokens: not given, got none; expected how many to train on. Write e.g. 100B."
        )
    sequences = None
    if asked.global_batch is not None and size is not None:
        sequences = errors.attempt(parse_batch, asked.global_batch, size.seq_len)
    errors.raise_all()
    assert size is not None
    job = job_of(config, size, 1, DEFAULT_BATCH_SIZE_PER_RANK)
    if sequences is not None:
        job = replace(job, global_sequences=sequences)
    tokens = tokens or config.train.tokens
    if tokens is None and gpus is None and job.global_sequences is None:
        raise ConfigError(
            "--tokens: not given, and what the configuration's steps come to depends on the number "
            "of GPUs, got none; expected how many to train on, e.g. 100B."
        )
    return replace(job, tokens=tokens or config.train.steps * job.tokens_per_step(gpus or 1))


def parse_batch(text: str, seq_len: int) -> int:
    """Return a global batch in sequences, given in those or, with ``tokens`` behind it, in tokens.

    >>> parse_batch("256", 2048), parse_batch("524288 tokens", 2048)
    (256, 256)

    Raises:
        ConfigError: it is no number, or no whole number of sequences.
    """
    value = parse_count(text, "--global-batch")
    if "tok" not in text.lower():
        return value
    if value % seq_len:
        raise ConfigError(
            f"--global-batch: no whole number of sequences, got {value} tokens; expected a "
            f"multiple of {seq_len} (model.seq_len), e.g. {max(1, value // seq_len) * seq_len}."
        )
    return value // seq_len


def _as_typed(message: str, asked: Asked) -> str:
    """Return a setting's error under the name of the option that was typed."""
    return message.replace(f"--set model.preset={asked.model}", f"--model {asked.model}").replace(
        f"--set train.precision={asked.precision}", f"--precision {asked.precision}"
    )
