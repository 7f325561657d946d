"""The first Ctrl-C asks, the second insists, and the handlers from before come back."""

from __future__ import annotations

import os
import signal

import pytest

from gmbench.cli.signals import stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_asks_second_ends(number: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with stop_on_signals() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            signal.sigtimedwait([], 0)  # a place for the handler to run
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.count("once more ends it at once") == 1
