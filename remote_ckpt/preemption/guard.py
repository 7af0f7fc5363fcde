"""`PreemptionGuard`: listens for word that this machine is about to be taken away, from signals and from the clouds."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from remote_ckpt.preemption.notices import Cloud, Ec2, Gce, Notice

log = logging.getLogger("remote_ckpt")

_ATTEMPTS = 3  # a cloud that has never answered by then is not ours

Handler = Any  # what `signal.signal` returns: a function, SIG_DFL, SIG_IGN, or None for one that Python does not know


class PreemptionGuard:
    """Hears of preemption while a model trains; give it to `RemoteModelCheckpoint(..., preemption=…)`.

    At the next batch's end the callback saves, ends training, and uses the time left for uploads. Several callbacks of
    one `fit` may share a guard.

    Signals: a handler is installed in the main thread for as long as training lasts. The first signal is a notice. Once
    training has ended, it is raised again with the handler that was there before, so that the process ends as it would
    have without a guard. So does a second signal at once, and a watching thread sends one when `grace` is over, so that
    no signal is ever swallowed: not by a training that hangs, and not after an exception that ended `fit`.
    """

    def __init__(
        self,
        *,
        grace: float = 30.0,
        signals: Iterable[signal.Signals] = (signal.SIGTERM,),
        ec2: bool | str = True,
        gce: bool | str = True,
        rebalance: bool = False,
        reraise: bool = True,
        poll: float = 2.0,
    ):
        """Make a guard; it listens only during training.

        Args:
            grace: Seconds between a signal and the end: 30 for Kubernetes and `docker stop -t 30`, and 10 for
                `docker stop`.
            signals: What counts as a notice; none to leave signals alone.
            ec2: Whether to ask EC2's metadata server, or its URL; by default
                `AWS_EC2_METADATA_SERVICE_ENDPOINT`, and not where `AWS_EC2_METADATA_DISABLED` is true.
            gce: Whether to ask Compute Engine's, or its URL; by default `GCE_METADATA_HOST`, and not where
                `NO_GCE_CHECK` is true. A cloud that does not answer at first is not asked again.
            rebalance: Whether EC2's recommendation to rebalance is a notice as well.
            reraise: Whether a signal is raised again after training.
            poll: Seconds between two questions.

        Raises:
            ValueError: A time is not above 0, or a URL is not one of http.
        """
        for name, value in (("grace", grace), ("poll", poll)):
            if not value > 0:
                raise ValueError(f"{name} is a time in seconds above 0. Received: {value!r}")
        self.grace = grace
        self.poll = poll
        self.reraise = reraise
        self._signals = tuple(signals)
        self._clouds = _clouds(ec2, gce, rebalance)
        self._notice: Notice | None = None
        self._signal: int | None = None
        self._previous: dict[int, Handler] = {}
        self._signal_deadline = 0.0
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._stopped = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def notice(self) -> Notice | None:
        """What was heard first, or None. Any thread."""
        return self._notice

    def start(self, user: Any) -> None:
        """Listen, on behalf of `user`; forgets an earlier notice unless somebody listens already. Idempotent."""
        if not self._users:
            self._notice = self._signal = None
            self._install()
            self._watch()
        self._users.add(user)

    def stop(self, user: Any) -> None:
        """Stop listening once the last user has; then raise again the signal that was heard, if any. Idempotent.

        With no handler there before, that is the end of the process.
        """
        if user not in self._users:
            return
        self._users.discard(user)
        if self._users:
            return
        self._stopped.set()
        if self._watcher is not None:
            self._watcher.join(0.2)  # it may be asking a server that does not answer; it ends soon by itself
            self._watcher = None
        self._uninstall()
        if self._signal is not None and self.reraise:
            _pass_on(self._signal)

    # Signals

    def _install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            log.debug("Training runs outside the main thread, where no signal can be listened for.")
            return
        for number in self._signals:
            if number not in self._previous and signal.getsignal(number) is not None:
                self._previous[number] = signal.signal(number, self._on_signal)

    def _uninstall(self) -> None:
        if threading.current_thread() is threading.main_thread():
            while self._previous:
                signal.signal(*self._previous.popitem())

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        """Take note; on the main thread between two of its instructions, so: no lock, no log."""
        if self._signal is None and self._users:
            self._signal = number
            self._notice = self._notice or Notice.within(signal.Signals(number).name, self.grace)
            self._signal_deadline = time.monotonic() + self.grace
            return
        self._signal = None
        self._uninstall()
        _pass_on(number)

    # Clouds

    def _watch(self) -> None:
        self._stopped.set()  # for a user that never said it had stopped
        self._stopped = threading.Event()
        if self._clouds or self._previous:
            arguments = (self._stopped, [_Asked(cloud) for cloud in self._clouds])
            self._watcher = threading.Thread(
                target=self._listen, args=arguments, name="remote_ckpt-preemption", daemon=True
            )
            self._watcher.start()

    def _listen(self, stopped: threading.Event, clouds: list[_Asked]) -> None:
        while not stopped.is_set():
            clouds = [cloud for cloud in clouds if not cloud.foreign]
            for cloud in clouds if self._notice is None else ():
                heard = cloud.look()
                self._notice = self._notice or heard
            self._end_what_is_overdue()
            stopped.wait(self.poll)

    def _end_what_is_overdue(self) -> None:
        """Send the signal a second time when its time is over and training has not ended."""
        if self._previous and self._signal is not None and time.monotonic() > self._signal_deadline:
            os.kill(os.getpid(), self._signal)


@dataclass
class _Asked:
    """A cloud that may not be ours: one that has never answered is soon left alone."""

    cloud: Cloud
    failures: int = 0
    answered: bool = False

    @property
    def foreign(self) -> bool:
        return not self.answered and self.failures >= _ATTEMPTS

    def look(self) -> Notice | None:
        try:
            notice = self.cloud.look()
        except Exception as exc:  # noqa: BLE001 - whatever it answers, listening must go on
            self.failures += 1
            if self.foreign:
                log.debug("%s does not answer, and is not asked again: %s", self.cloud.name, exc)
            return None
        self.answered = True
        return notice


def _clouds(ec2: bool | str, gce: bool | str, rebalance: bool) -> list[Cloud]:
    for name, url in (("ec2", ec2), ("gce", gce)):
        if isinstance(url, str) and not url.startswith(("http://", "https://")):
            raise ValueError(f"{name} is True, False or a URL that begins with http://. Received: {url!r}")
    asked: list[Cloud | None] = [
        Ec2(ec2, rebalance) if isinstance(ec2, str) else Ec2.from_environment(rebalance) if ec2 else None,
        Gce(gce) if isinstance(gce, str) else Gce.from_environment() if gce else None,
    ]
    return [cloud for cloud in asked if cloud is not None]


def _pass_on(number: int) -> None:
    """Raise a signal with the handler that is installed now; what was printed is not lost, even if it ends us."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    signal.raise_signal(number)
