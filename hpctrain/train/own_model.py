"""A model of the user's own: `model.factory = "my_module:build"`."""

from __future__ import annotations

import importlib
import traceback
from typing import Any

import torch
from torch import nn

from hpctrain.errors import ConfigError
from hpctrain.train.presets import ModelSize


def build_own_model(where: str, size: ModelSize, seed: int) -> nn.Module:
    """Return what the user's function builds, on the CPU.

    Args:
        where: ``module:function``; the function takes `vocab_size` and `seq_len` and returns a
            module that maps tokens (batch, seq) int64 to scores (batch, seq, vocab_size).
        seed: torch's random numbers start from it, so that every rank builds the same.

    Raises:
        ConfigError: there is no such function, or it returns something else.
    """
    torch.manual_seed(seed)
    sizes = {"vocab_size": size.vocab_size, "seq_len": size.seq_len}
    model = call_function("model.factory", where, **sizes)
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"model.factory: {where} returned something else, got {type(model).__name__}; expected "
            "a torch.nn.Module. See examples/own_model.py."
        )
    formats = {p.dtype: name for name, p in model.named_parameters() if p.requires_grad}
    if set(formats) != {torch.float32}:
        got = ", ".join(f"{name} in {dtype}" for dtype, name in formats.items())
        raise ConfigError(
            f"model.factory: {where} needs trained parameters, all of them in torch.float32, got "
            f"{got or 'none'}; train.precision says what they are computed in."
        )
    return model


def call_function(setting: str, where: str, **arguments: Any) -> Any:
    """Call the user's function and return what it returns.

    Raises:
        ConfigError: there is none, or it raised something: what, and in which line.
    """
    function = load_function(setting, where)
    try:
        return function(**arguments)
    except Exception as problem:
        frame = traceback.extract_tb(problem.__traceback__)[-1]
        place = f" ({frame.filename}:{frame.lineno})" if frame.filename != __file__ else ""
        raise ConfigError(
            f"{setting}: {where} raised {type(problem).__name__}: {problem}{place}; it is called "
            f"with {', '.join(arguments)}."
        ) from problem


def load_function(setting: str, where: str) -> Any:
    """Return the function that ``module:function`` names.

    Raises:
        ConfigError: naming the setting and what could not be found.
    """
    module_name, colon, name = where.partition(":")
    problem = "not of that form"
    if colon and module_name and name:
        try:
            return getattr(importlib.import_module(module_name), name)
        except Exception as error:  # whatever the module does when it is imported
            problem = f"cannot be loaded: {error}"
    raise ConfigError(
        f"{setting}: {problem}, got {where!r}; expected 'module:function'. The module is looked "
        "for in the folder that hpctrain runs in, and on PYTHONPATH."
    )
