"""Progress in a log: nothing for what is quick, a line for each tenth of what is not."""

import io
import logging
import sys

import pytest

from faceattr import progress as source
from faceattr.progress import Progress, clock, tracked


@pytest.fixture
def now(monkeypatch) -> list[float]:
    """The time that `Progress` sees: its one item."""
    times = [100.0]
    monkeypatch.setattr(source.time, "monotonic", lambda: times[0])
    return times


def test_progress_logs_each_tenth_after_three_seconds(now, caplog):
    with caplog.at_level(logging.INFO), Progress("Hashing", 2000) as progress:
        for _ in range(40):
            now[0] += 0.5  # 20 s in all
            progress.update(50)
    lines = [record.message for record in caplog.records]
    assert lines[0] == "Hashing: 15% (300 of 2,000), 0:17 left" and len(lines) == 9
    assert (
        lines[1] == "Hashing: 20% (400 of 2,000), 0:16 left" and lines[-1] == "Hashing: 90% (1,800 of 2,000), 0:02 left"
    )


def test_progress_of_what_is_quick_or_has_no_title_is_silent(now, caplog):
    with caplog.at_level(logging.INFO):
        assert list(tracked(range(10), "Hashing", 10)) == list(range(10))
        with Progress("", 10) as progress:
            now[0] += 60
            progress.update(5)
    assert not caplog.records


def test_progress_on_a_terminal_is_a_bar_that_goes_away(now, caplog, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO), Progress("Hashing", 10, delay=0) as progress:
        now[0] += 60
        progress.update(5)
    assert "Hashing" in terminal.getvalue() and not caplog.records


def test_clock_has_hours_only_where_there_are_any():
    assert [clock(5.4), clock(750), clock(3723)] == ["0:05", "12:30", "1:02:03"]
