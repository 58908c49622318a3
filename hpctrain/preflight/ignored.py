"""Which settings that were given will have no effect, and why? Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from hpctrain.config import Config, as_tables
from hpctrain.errors import ConfigError
from hpctrain.train.choices import ignored_settings, resolve_exchange

# What only hpctrain's own trainer reads.
TRAINERS_SECTIONS = ("model", "data", "train", "optim", "comm", "checkpoint")
_NEEDS_SAVING = (
    "checkpoint.every_steps", "checkpoint.keep_last", "checkpoint.keep_every_steps",
    "launch.save_timeout_s",
)  # fmt: skip


def find_ignored(
    config: Config, given: Collection[str], *, np: int | None, is_trainer: bool, is_local: bool
) -> list[str]:
    """Return a line for each setting that was given and will be ignored.

    Args:
        given: the settings that were given, as ``section.key``.
        np: ranks; None where that is not known.
        is_trainer: whether hpctrain's own trainer runs, and no COMMAND.
        is_local: whether all ranks run on this machine.
    """
    tables = as_tables(config)
    lines = []
    for key, reason in _ignored(config, np, is_trainer=is_trainer, is_local=is_local):
        if key in given:
            section, _, name = key.partition(".")
            lines.append(f"{key} = {_show(tables[section][name])} is ignored: {reason}")
    if not is_trainer:
        unread = sorted(key for key in given if key.partition(".")[0] in TRAINERS_SECTIONS)
        if unread:
            names = ", ".join(unread[:6]) + (" …" if len(unread) > 6 else "")
            lines.append(f"{names}: hpctrain's own trainer alone reads this, COMMAND does not")
    return lines


def _ignored(
    config: Config, np: int | None, *, is_trainer: bool, is_local: bool
) -> Iterator[tuple[str, str]]:
    if is_local:
        yield "launch.subnet", "all ranks are on this machine"
        yield "launch.forward", "ranks on this machine inherit every variable"
    if not is_trainer:
        return
    yield from _ignored_in_training(config)
    if np == 1:
        yield "optim.sharded", "there is one rank"
        yield "comm.compression", "there is one rank"
    for key in ignored_settings(config):
        yield key, "model.factory builds the model"
    if config.checkpoint.save == "off":
        for key in _NEEDS_SAVING:
            yield key, "checkpoint.save is off"


def _ignored_in_training(config: Config) -> Iterator[tuple[str, str]]:
    train, optim, comm = config.train, config.optim, config.comm
    if train.tokens is not None:
        yield "train.steps", "train.tokens is given"
    if optim.warmup_tokens is not None:
        yield "optim.warmup_steps", "optim.warmup_tokens is given"
    if train.precision == "tf32" and train.device == "cpu":
        yield "train.precision", "a CPU computes in fp32"
    if comm.backend == "none":
        yield "comm.exchange", "comm.backend is none"
        return
    try:
        exchange = resolve_exchange(comm, optim)
    except ConfigError:
        return  # an error of its own
    if exchange == "native" and comm.backend == "horovod":
        yield "comm.bucket_mb", "comm.exchange = native exchanges as Horovod's own optimizer does"


def _show(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, (str, list)) else str(value)
