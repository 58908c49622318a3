"""Signals between two attempts."""

import selectors
import signal

import pytest

from hpctrain.launch.signals import (
    SAVE_SIGNALS,
    STOP_SIGNALS,
    SignalInbox,
    StopAsked,
    raising_stop_asked,
)


@pytest.mark.parametrize("number", sorted({*STOP_SIGNALS, *SAVE_SIGNALS}))
def test_a_signal_is_an_exception_and_handlers_come_back(number):
    before = signal.getsignal(number)
    with pytest.raises(StopAsked) as asked, raising_stop_asked():
        signal.raise_signal(number)
    assert asked.value.number == number
    assert signal.getsignal(number) == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising_stop_asked():
            signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


class Selector(selectors.DefaultSelector):
    """Has something happen while the inbox is taken down."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def unregister(self, file):
        self.act()
        return super().unregister(file)


def test_a_signal_after_the_loops_last_turn_is_not_lost():
    heard = []
    with selectors.DefaultSelector() as selector:
        inbox = SignalInbox(selector, heard.append)
        inbox.watch()
        signal.raise_signal(signal.SIGTERM)
        inbox.unwatch()
    assert heard == [signal.SIGTERM]


def test_a_signal_while_the_inbox_is_taken_down_is_for_whoever_comes_next():
    heard = []
    with Selector(lambda: signal.raise_signal(signal.SIGTERM)) as selector:
        inbox = SignalInbox(selector, heard.append)
        with raising_stop_asked():
            inbox.watch()
            with pytest.raises(StopAsked):
                inbox.unwatch()
    assert heard == []
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
