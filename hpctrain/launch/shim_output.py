"""What a rank's program says: its output and its events, passed on as frames."""

from __future__ import annotations

import json
import os
import selectors
from collections.abc import Mapping

from hpctrain.launch.channel import (
    OUTPUT_CHUNK_BYTES,
    STDIO_CHUNK_BYTES,
    ChannelError,
    LineBuffer,
)
from hpctrain.launch.shim_uplink import Uplink

STREAMS = ("stdout", "stderr", "events")
# Enough for a burst of output; beyond it the program waits, as it would on a full pipe.
MAX_UNSENT_BYTES = 4 << 20


class ProgramOutput:
    """The reading ends of a program's pipes.

    Args:
        selector: gets each pipe under the name of its stream.
    """

    def __init__(self, uplink: Uplink, selector: selectors.BaseSelector) -> None:
        self._uplink, self._selector = uplink, selector
        self._open: dict[int, str] = {}
        self._paused: list[int] = []
        self._event_lines = LineBuffer()
        self.last_step: int | None = None

    def watch(self, pipes: Mapping[int, str]) -> None:
        """Read from these descriptors, each with the name of its stream, from now on."""
        for descriptor, stream in pipes.items():
            self._open[descriptor] = stream
            self._selector.register(descriptor, selectors.EVENT_READ, stream)

    def read(self, descriptor: int) -> bool:
        """Pass on what a pipe holds; return whether it may hold more."""
        stream = self._open[descriptor]
        try:
            data = os.read(
                descriptor, OUTPUT_CHUNK_BYTES if self._uplink.is_connected else STDIO_CHUNK_BYTES
            )
        except BlockingIOError:
            return False
        if not data:
            self._close(descriptor)
        elif stream == "events":
            self._read_events(data)
        else:
            self._uplink.send("output", stream=stream, data=data.decode("latin-1"))
            self.keep_pace()
        return bool(data)

    def read_what_is_left(self) -> None:
        """Pass on all that a program that has ended left in its pipes."""
        for descriptor in list(self._open):
            while descriptor in self._open and self.read(descriptor):
                pass

    def keep_pace(self) -> None:
        """Stop reading the program's output while too much waits for the launcher."""
        waiting = self._uplink.unsent_bytes
        if waiting > MAX_UNSENT_BYTES and not self._paused:
            self._paused = [fd for fd, stream in self._open.items() if stream != "events"]
            for descriptor in self._paused:
                self._selector.unregister(descriptor)
        elif waiting < MAX_UNSENT_BYTES // 2 and self._paused:
            for descriptor in self._paused:
                self._selector.register(descriptor, selectors.EVENT_READ, self._open[descriptor])
            self._paused = []

    def _close(self, descriptor: int) -> None:
        if descriptor in self._paused:
            self._paused.remove(descriptor)
        else:
            self._selector.unregister(descriptor)
        os.close(descriptor)
        del self._open[descriptor]

    def _read_events(self, data: bytes) -> None:
        try:
            lines = self._event_lines.feed(data)
        except ChannelError as problem:
            self._event_lines = LineBuffer()
            warning = f"hpctrain: an event was dropped: {problem}\n"
            self._uplink.send("output", stream="stderr", data=warning)
            return
        for line in lines:
            self._pass_on_event(line)

    def _pass_on_event(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            step = event.get("step")
        except (ValueError, RecursionError, AttributeError):
            return  # some other program wrote to the descriptor
        if isinstance(step, int):
            self.last_step = step
        self._uplink.send("event", record=event)
