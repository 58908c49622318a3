"""Signals between two attempts."""

import signal

import pytest

from hpctrain.launch.signals import SAVE_SIGNALS, STOP_SIGNALS, StopAsked, raising_stop_asked


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
