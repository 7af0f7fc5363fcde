"""What the log tells of a transfer, by a clock that the test sets."""

from __future__ import annotations

import logging

import pytest

from remote_ckpt.progress import Meter
from remote_ckpt.stores import MIB


class Clock:
    """Seconds, as the test wants them."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(caplog: pytest.LogCaptureFixture) -> Clock:
    """A clock, and a log that is listened to."""
    caplog.set_level(logging.INFO, "remote_ckpt")
    return Clock()


def move(meter: Meter, clock: Clock, seconds: int, mib_per_second: int) -> None:
    for _ in range(seconds):
        clock.now += 1
        meter(mib_per_second * MIB)


def test_a_short_transfer_is_not_worth_a_line(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Nine seconds."""
    move(Meter("Uploading x", 90 * MIB, clock=clock), clock, 9, 10)
    assert not caplog.records


def test_a_long_one_tells_bytes_rate_and_time_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Every ten seconds, at INFO; the rate is the present one."""
    meter = Meter("Uploading s3://b/x", 400 * MIB, clock=clock)
    move(meter, clock, 11, 10)
    move(meter, clock, 9, 20)
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    assert caplog.messages[0] == "Uploading s3://b/x: 100.0 of 400.0 MiB (25 %), 10.0 MiB/s, about 30 s left"
    assert caplog.messages[1] == "Uploading s3://b/x: 290.0 of 400.0 MiB (72 %), 19.0 MiB/s, about 6 s left"


def test_what_was_there_before_is_no_speed(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A resumed transfer tells it at once."""
    meter = Meter("Downloading x", 2000 * MIB, clock=clock)
    meter.resume(1000 * MIB)
    move(meter, clock, 10, 1)
    assert caplog.messages == ["Downloading x: 1010.0 of 2000.0 MiB (50 %), 1.0 MiB/s, about 16 min left"]


def test_what_is_told_twice_does_not_exceed_the_whole(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """A file that is fetched anew."""
    move(Meter("Downloading x", 50 * MIB, clock=clock), clock, 10, 10)
    assert caplog.messages == ["Downloading x: 50.0 of 50.0 MiB (100 %), 10.0 MiB/s, about 0 s left"]


def test_it_passes_on_what_it_counts(clock: Clock) -> None:
    """To the bar of the command line."""
    told: list[int] = []
    meter = Meter("Downloading x", 5, told.append, clock=clock)
    meter(2)
    meter(3)
    assert told == [2, 3]
