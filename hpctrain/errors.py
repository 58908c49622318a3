"""What can go wrong, as one tree: catch :class:`HpctrainError` to catch all of it.

HpctrainError            exit code 1
├── ConfigError          2   a configuration file, a --set or an option is wrong
├── HostfileError        2   a hostfile or host list is wrong
├── PlanError            2   the request and the machine do not fit (np over the slots …)
├── RunDirectoryError    2   a run's name is taken, in use or unknown
├── DataError            1   prepared data is missing, damaged or does not fit the model
├── ProbeError           1   a machine could not be asked
├── BuildError           1   something could not be built or installed
├── ClusterError         1   a cluster could not be made, asked or removed
├── BenchError           1   a measurement failed, is implausible, or falls below a limit
├── TrainingError        1   training cannot go on, e.g. the loss is not a number
│   └── FaultyHostError  1   a host or the network computes or carries wrong numbers
├── CheckpointError      1   a checkpoint is missing, damaged, unfit or cannot be written
├── OtherRankError           another rank stopped the run, with that rank's code
└── LaunchError          the code of the first rank that failed

A message reads ``<where>: <what is wrong>, got <value>; expected <set or range>. <what to do>``.
Whoever checks several things collects all their messages first (:func:`raise_all`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_RESUMABLE = 75
EXIT_INTERRUPTED = 130


class HpctrainError(Exception):
    """Base of every error that a user can do something about."""

    exit_code = EXIT_FAILED
    retryable = False
    """Whether the same run may get further if it is started again, without anybody's help."""

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(messages))
        self.messages = messages


class ConfigError(HpctrainError):
    """A configuration value is missing, unknown or out of range."""

    exit_code = EXIT_USAGE


class HostfileError(HpctrainError):
    """A hostfile or host list cannot be understood."""

    exit_code = EXIT_USAGE


class PlanError(HpctrainError):
    """What was asked for does not fit the facts of the machines."""

    exit_code = EXIT_USAGE


class RunDirectoryError(HpctrainError):
    """A run's name is taken, in use or unknown."""

    exit_code = EXIT_USAGE


class DataError(HpctrainError):
    """Prepared data is missing, damaged or does not fit the model."""


class ProbeError(HpctrainError):
    """A machine could not be asked for its facts."""


class BuildError(HpctrainError):
    """A dependency could not be built or installed."""


class ClusterError(HpctrainError):
    """A cluster could not be made, asked or removed."""


class BenchError(HpctrainError):
    """A measurement failed, is implausible, or falls below a limit."""


class TrainingError(HpctrainError):
    """Training cannot go on, e.g. the loss is not a number."""


class FaultyHostError(TrainingError):
    """Ranks compute what they cannot have computed: a host or the network is faulty."""

    retryable = True


class CheckpointError(HpctrainError):
    """A checkpoint is missing, damaged, does not fit the run, or cannot be written."""


class OtherRankError(HpctrainError):
    """Another rank stopped the run; it has said why."""

    def __init__(self, *messages: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(*messages)
        self.exit_code = exit_code


class LaunchError(HpctrainError):
    """A launch failed; carries the exit code of the first rank that failed."""

    retryable = True

    def __init__(self, *messages: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(*messages)
        self.exit_code = exit_code


def raise_all(error_type: type[HpctrainError], messages: Sequence[str]) -> None:
    """Raise one error that holds every message, or return if there are none."""
    if messages:
        raise error_type(*messages)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for a near miss, else ``""``.

    >>> did_you_mean("slot", ["slots", "max_slots"])
    " Did you mean 'slots'?"
    >>> did_you_mean("zebra", ["slots"])
    ''
    """
    import difflib  # imported with regular expressions, which a good launch need not pay for

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
