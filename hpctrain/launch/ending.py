"""End an attempt: ask the ranks to save, ask them to leave, then insist.

Through the shims first, which give their programs `launch.grace_s`, and only then through mpirun
(Open MPI 5 gives ranks a quarter of a second, Hydra never insists).
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

from hpctrain.launch.outcome import Console
from hpctrain.launch.plan import LaunchPlan
from hpctrain.launch.server import ChannelServer
from hpctrain.launch.signals import SAVE_SIGNALS


class Ending:
    """How far the end of an attempt has come, and what is done when if ranks do not leave."""

    def __init__(self, plan: LaunchPlan, server: ChannelServer, console: Console) -> None:
        self._plan, self._server, self._console = plan, server, console
        self.mpirun: subprocess.Popen[bytes] | None = None
        self.has_begun = False
        self.stop_signal: int | None = None
        self.save_signal: int | None = None
        self.mpirun_was_signalled = False
        self._later: list[tuple[float, Callable[[], None]]] = []

    @property
    def is_asked(self) -> bool:
        """Whether somebody has asked for the end, by a signal or an order file."""
        return self.stop_signal is not None or self.save_signal is not None

    def on_signal(self, number: int, *, may_save: bool, unheard: bool) -> None:
        """Do what a signal to the launcher asks for.

        Args:
            may_save: whether there is something to save: all ranks have begun, and none failed.
            unheard: whether a rank has no connection, so that only mpirun reaches it.
        """
        asks_to_save = number in SAVE_SIGNALS
        if not self.is_asked:
            if asks_to_save and self._plan.saves_on_signal and may_save:
                self._ask_to_save(number, unheard=unheard)
            else:
                self.stop_by(signal.SIGTERM if asks_to_save else number)
        elif number == signal.SIGUSR1:
            pass  # it is ending already
        elif self.stop_signal is not None or number == self.save_signal == signal.SIGTERM:
            self.stop_signal = self.stop_signal or number
            self._server.send_signal(signal.SIGKILL)  # asked twice: at once
            self._signal_mpirun(signal.SIGKILL)
        elif number == signal.SIGTERM:
            self.save_signal = number  # the first SIGTERM, after SIGUSR1: they are saving
        else:
            self.stop_by(number)

    def stop_by(self, number: int) -> None:
        """End all ranks, because a signal says so."""
        self.stop_signal = number
        self.begin()

    def begin(self) -> None:
        """Ask politely through the shims, then mpirun, then insist."""
        self.has_begun = True
        self._server.send_signal(signal.SIGTERM)
        if not self._server.connected_ranks:
            self._signal_mpirun(signal.SIGTERM)
        self.insist_after(self._plan.grace_s + 1.0)

    def insist_after(self, delay_s: float) -> None:
        """End mpirun after a time, and kill it after another."""
        self.do_after(delay_s, lambda: self._signal_mpirun(signal.SIGTERM))
        self.do_after(delay_s + self._plan.grace_s, lambda: self._signal_mpirun(signal.SIGKILL))

    def do_after(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later, in a turn of the loop."""
        self._later.append((time.monotonic() + delay_s, action))

    def go_on(self, now_s: float) -> None:
        """Do what is due."""
        due = [action for at_s, action in self._later if at_s <= now_s]
        self._later = [entry for entry in self._later if entry[0] > now_s]
        for action in due:
            action()

    def next_at_s(self) -> float:
        """Return when something is due."""
        return min((at_s for at_s, _ in self._later), default=float("inf"))

    def end_mpirun(self) -> None:
        """End mpirun where an error has ended the loop before it."""
        if self.mpirun is None or self.mpirun.poll() is not None:
            return
        self.mpirun.terminate()
        try:
            self.mpirun.wait(self._plan.grace_s)
        except subprocess.TimeoutExpired:
            self.mpirun.kill()
            self.mpirun.wait()

    def _ask_to_save(self, number: int, *, unheard: bool) -> None:
        """Have the ranks save and leave by themselves; if they do not in time, stop them."""
        self.save_signal = number
        limit_s = self._plan.save_timeout_s
        self._console.warn(
            f"{signal.Signals(number).name}: the ranks were asked to save and leave; they have "
            f"{limit_s:g} s (launch.save_timeout_s)"
        )
        self._server.send_signal(signal.SIGUSR1)
        if unheard and self.mpirun is not None and self.mpirun.poll() is None:
            self.mpirun.send_signal(signal.SIGUSR1)  # mpirun passes it on to all ranks
        self.do_after(limit_s, self._give_up_saving)

    def _give_up_saving(self) -> None:
        if not self.has_begun:
            self._console.warn("the ranks did not leave in time (launch.save_timeout_s)")
            self.stop_by(signal.SIGTERM)

    def _signal_mpirun(self, number: int) -> None:
        if self.mpirun is not None and self.mpirun.poll() is None:
            self.mpirun_was_signalled = True
            self.mpirun.send_signal(number)
