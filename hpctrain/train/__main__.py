"""Start of a rank: ``python -m hpctrain.train [--config FILE] [--set section.key=value]…``

Under `hpctrain run` the configuration comes, resolved, in HPCTRAIN_CONFIG_JSON. By hand it
comes from the options; start several ranks with an mpirun of your own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hpctrain.config import Config, config_from_tables, load_config
from hpctrain.errors import EXIT_OK, BuildError, ConfigError, HpctrainError, OtherRankError
from hpctrain.events import emit
from hpctrain.launch.rank_env import CONFIG_VARIABLE
from hpctrain.launch.stacks import tell_stacks_on_signal
from hpctrain.pulse import PulseWriter

if TYPE_CHECKING:
    from hpctrain.train.communicator import Communicator

CULPRIT_LEAVES_FIRST_S = 0.5


def main(argv: Sequence[str] | None = None) -> int:
    """Train one rank's part of a run; return the exit code."""
    try:
        config = read_config(argv)
        # Before anybody is waited for: a rank that hangs here is to be found, and to tell where.
        PulseWriter().enter("start")
        tell_stacks_on_signal()
        # Last: for model.factory, but no file there may stand in for a module of anybody else.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())

        if find_spec("torch") is None:
            raise BuildError("torch: is not installed. Run: pip install 'hpctrain[train]'.")

        # Late, so that --help and a wrong option are answered without loading torch.
        from hpctrain.train.communicator import launched_size, open_communicator
        from hpctrain.train.flops import rank_flops

        flops = rank_flops(config, launched_size()[0])
        comm = open_communicator(
            config.comm.backend, config.train.device, flops, fuses=config.comm.exchange == "native"
        )
        try:
            return train(config, comm)
        finally:
            comm.shutdown()
    except HpctrainError as error:
        return tell(error)


def train(config: Config, comm: Communicator) -> int:
    """Train; return the exit code.

    What goes wrong is told here: an exception that was still under way when the communicator
    shuts down would hold what is to end with it.
    """
    from hpctrain.train.loop import run_training

    try:
        run_training(config, comm)
    except OtherRankError as error:
        # To stdout, which the console shows of rank 0 alone, and last to leave: the launcher
        # and mpirun take the first rank that leaves for the culprit.
        print(error, flush=True)
        time.sleep(CULPRIT_LEAVES_FIRST_S)
        return error.exit_code
    except HpctrainError as error:
        return tell(error)
    return EXIT_OK


def tell(error: HpctrainError) -> int:
    """Print an error, and tell the launcher whether to try again; return its exit code."""
    for message in error.messages:
        print(f"error: {message}", file=sys.stderr, flush=True)
    emit(
        "train_failed", error=type(error).__name__, retryable=error.retryable,
        message=error.messages[0] if error.messages else "",
    )  # fmt: skip
    return error.exit_code


def read_config(argv: Sequence[str] | None) -> Config:
    """Return the configuration from the options or, without any, from the environment.

    Raises:
        ConfigError: something in it is wrong.
    """
    parser = argparse.ArgumentParser(
        prog="python -m hpctrain.train", description="Train one rank's part of a run."
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration (TOML)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides",
        help="one setting, e.g. train.steps=100; may be given several times",
    )  # fmt: skip
    options = parser.parse_args(argv)
    resolved = os.environ.get(CONFIG_VARIABLE)
    if resolved is None or options.config or options.overrides:
        return load_config(options.config, options.overrides)
    try:
        return config_from_tables(json.loads(resolved))
    except json.JSONDecodeError as problem:
        raise ConfigError(f"{CONFIG_VARIABLE}: not valid JSON: {problem}.") from problem


if __name__ == "__main__":
    sys.exit(main())
