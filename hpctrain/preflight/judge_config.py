"""What is wrong with a configuration, all of it at once, before a rank finds out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpctrain.config import Config, inspect_config
from hpctrain.errors import ConfigError, HpctrainError
from hpctrain.launch.prepare import Asked
from hpctrain.preflight.ignored import find_ignored
from hpctrain.recipes import find_recipe
from hpctrain.train.choices import (
    check_recomputing,
    resolve_exchange,
    resolve_global_batch_size,
)
from hpctrain.train.presets import resolve_model


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """What a configuration comes to.

    Args:
        errors: why it cannot run; `ignored`: what will have no effect.
        given: how many settings were given.
    """

    errors: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    given: int = 0


def gather_config_facts(
    asked: Asked, np: int | None, load_errors: Sequence[str] = (), *, is_local: bool = False
) -> ConfigFacts:
    """Read what was asked for, as far as it can be understood, and judge all of it.

    Args:
        np: ranks; None where that is not known.
        load_errors: what reading it for a launch has found already.
        is_local: whether all ranks run on this machine.
    """
    try:
        path = find_recipe(asked.config_name) if asked.config_name else None
        text = path.read_text(encoding="utf-8") if path else ""
        config, errors, given = inspect_config(
            text, str(path) if path else "configuration", asked.overrides
        )
    except (HpctrainError, OSError, UnicodeDecodeError) as unreadable:
        return ConfigFacts(errors=tuple(load_errors) or (str(unreadable),))
    is_trainer = not asked.program
    errors = tuple(errors) or tuple(load_errors)
    if is_trainer:
        errors += tuple(find_config_errors(config, np, wrong=_sections_of(errors)))
    ignored = find_ignored(config, given, np=np, is_trainer=is_trainer, is_local=is_local)
    ignored += _overridden(asked, config, given)
    return ConfigFacts(errors=errors, ignored=tuple(ignored), given=len(given))


def find_config_errors(
    config: Config, np: int | None, *, wrong: frozenset[str] = frozenset()
) -> list[str]:
    """Return what a rank would refuse of a training's configuration. Pure.

    Args:
        np: ranks; None where that is not known.
        wrong: sections with an error already: what is judged with their defaults says nothing.
    """
    looks: tuple[tuple[tuple[str, ...], Callable[[], object]], ...] = (
        (("model",), lambda: resolve_model(config.model)),
        (("train",), lambda: np and resolve_global_batch_size(config.train, np)),
        (("train",), lambda: check_recomputing(config.train)),
        (("comm", "optim"), lambda: resolve_exchange(config.comm, config.optim)),
        (("comm",), lambda: _check_backend(config, np)),
    )
    errors: list[str] = []
    for sections, look in looks:
        if not wrong.intersection(sections):
            try:
                look()
            except HpctrainError as problem:
                errors += problem.messages
    return errors


def _check_backend(config: Config, np: int | None) -> None:
    if config.comm.backend == "none" and np is not None and np > 1:
        raise ConfigError(
            f"comm.backend: 'none' is for one rank, got {np} ranks; expected 'horovod' or 'ddp'. "
            "Start one rank (--np 1), or set comm.backend=horovod."
        )


def _sections_of(errors: Sequence[str]) -> frozenset[str]:
    """Return the sections that errors name.

    >>> sorted(_sections_of(["my.toml: train.stepz: unknown key", "--set model.x=1: wrong"]))
    ['model', 'train']
    """
    names = "model|data|train|optim|comm|checkpoint|launch"
    return frozenset(
        match[1] for error in errors if (match := re.search(rf"(?:: |--set )({names})\b", error))
    )


def _overridden(asked: Asked, config: Config, given: Sequence[str]) -> list[str]:
    """Name settings whose place an option takes."""
    lines = []
    if asked.np is not None and "launch.np" in given and config.launch.np != asked.np:
        lines.append(f"launch.np = {config.launch.np} is ignored: --np {asked.np} is given")
    has_hosts = asked.hosts_file or asked.host_list or asked.cluster
    if has_hosts and "launch.hosts" in given:
        name = config.launch.hosts
        lines.append(f"launch.hosts = {name!r} is ignored: --hosts, -H or --cluster is given")
    return lines
