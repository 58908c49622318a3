"""How a rank tells what it is doing: one JSON object a line, to the rank shim.

The shim hands each rank a pipe (``HPCTRAIN_EVENTS_FD``) and sends what comes out of it to
the launcher, the only writer of the run directory. Outside a launch :func:`emit` does nothing,
so a script that calls it also runs by itself. Unknown values are ``null``, never 0.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
from typing import Any

from hpctrain.pulse import PulseWriter

SCHEMA = 1
EVENTS_FD_VARIABLE = "HPCTRAIN_EVENTS_FD"


def encode_event(event: str, **fields: Any) -> bytes:
    """Return one event as a line of JSON.

    NaN and infinities, which JSON lacks, are written as the strings ``"nan"``, ``"inf"`` and
    ``"-inf"``: a broken loss must stay visible. What is no JSON value becomes a number where it
    can (a tensor, NumPy's floats), else text: reporting must never end a training.
    """
    # `time_s` is always the wall clock's, whatever a field of that name says.
    record = {"schema": SCHEMA, "event": event} | fields | {"time_s": round(time.time(), 6)}
    return json.dumps(_spell_out(record), separators=(",", ":")).encode() + b"\n"


def emit(event: str, **fields: Any) -> None:
    """Send one event to the launcher; do nothing when no launcher listens."""
    if EVENTS_FD_VARIABLE in os.environ:
        write_event(encode_event(event, **fields))


def write_event(line: bytes) -> None:
    """Write an encoded event to the shim; returns when its pipe has taken it."""
    where = os.environ.get(EVENTS_FD_VARIABLE)
    if where is None:
        return
    try:
        descriptor, _, inode = where.partition(":")
        if inode and os.fstat(int(descriptor)).st_ino != int(inode):
            raise OSError("the descriptor is another file's by now")
        while line:
            line = line[os.write(int(descriptor), line) :]
    except (OSError, ValueError):
        # The shim is gone, or a wrapper closed the descriptor: training goes on unobserved.
        os.environ.pop(EVENTS_FD_VARIABLE, None)


def report_step(step: int, **fields: Any) -> None:
    """Tell hpctrain that this rank has finished a step; safe to call anywhere.

    Args:
        step: number of finished steps.
        fields: further values under hpctrain's own names, e.g. ``loss``, ``tokens_per_s``,
            ``step_time_s`` (s).
    """
    emit("step", step=step, **fields)
    _pulse().step(step)


@functools.cache
def _pulse() -> PulseWriter:
    return PulseWriter()


def _spell_out(value: Any) -> Any:
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, dict):
        return {str(key): _spell_out(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_spell_out(item) for item in value]
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return str(value)
    return number if math.isfinite(number) else str(number)
