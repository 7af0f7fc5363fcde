"""`PreemptionGuard`: listens for word that this machine is about to be taken away, from signals and from the clouds."""

from __future__ import annotations

import logging
import signal
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from remote_ckpt.preemption.notices import Cloud, Ec2, Gce, Notice
from remote_ckpt.preemption.signals import SignalWatch
from remote_ckpt.threads import keep_at

log = logging.getLogger("remote_ckpt")

_ATTEMPTS = 3  # a cloud that has never answered by then is not ours

UnderWay = Callable[[], bool]
"""Returns whether a training goes on; asked on any thread, and inside signal handlers, so it takes no lock."""


class PreemptionGuard:
    """Hears of preemption while a model trains; give it to `RemoteModelCheckpoint(..., preemption=…)`.

    At the next batch's end the callback saves, ends training, and uses the time left for uploads. Several callbacks of
    one `fit` may share a guard.

    Signals: handlers are installed in the main thread for as long as training lasts, see `SignalWatch`. The first
    signal is a notice, heard at once also while the main thread is in native code. Once training has ended, it is
    raised again with the handler that was there before, so that the process ends as it would have without a guard. A
    second signal is let through at once, and the first when `grace` is over, so that no signal is ever swallowed: not
    by a training that hangs. After an exception that ended `fit`, signals do what they did before at once.

    A copy, or what is unpickled, has the same settings, and listens to nothing yet.
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
        self._asks = {"ec2": ec2, "gce": gce, "rebalance": rebalance}
        self._clouds = _clouds(ec2, gce, rebalance)
        self._notice: Notice | None = None
        self._users: weakref.WeakKeyDictionary[Any, UnderWay] = weakref.WeakKeyDictionary()
        self._watch = self._new_watch()
        self._stopped = threading.Event()
        self._asker: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            "grace": self.grace,
            "signals": self._signals,
            "reraise": self.reraise,
            "poll": self.poll,
            **self._asks,
        }

    def __setstate__(self, settings: dict[str, Any]) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    @property
    def notice(self) -> Notice | None:
        """What was heard first, or None. Any thread."""
        return self._notice

    def start(self, user: Any, under_way: UnderWay = lambda: True) -> None:
        """Listen, on behalf of `user`; forgets an earlier notice unless somebody listens already. Idempotent.

        Args:
            user: Kept by a weak reference; one that is garbage listens no more.
            under_way: Whether the user's training still goes on, for one that an exception may end without `stop`.
        """
        if not self._is_under_way() and not self._watch.holds_back:
            self._end()
            self._users.clear()
            self._notice = None
            self._watch = self._new_watch()
            self._watch.install()
            self._ask()
        self._users[user] = under_way

    def stop(self, user: Any) -> None:
        """Stop listening once the last user has; then raise again the signal that was heard, if any. Idempotent.

        With no handler there before, that is the end of the process.
        """
        if self._users.pop(user, None) is None or self._is_under_way():
            return
        held = self._watch.signal if self._watch.holds_back else None
        self._end()
        if held is not None and self.reraise:
            self._watch.pass_on(held)

    def forget(self, user: Any, under_way: UnderWay) -> None:
        """Give the signals back after a training that ended without `stop`; a signal that is held back still is.

        Does nothing for a user that listens for another training by now. Any thread, but only the main one can.
        """
        if self._users.get(user) is under_way:
            del self._users[user]
            if not self._is_under_way() and not self._watch.holds_back:
                self._end()

    def _is_under_way(self) -> bool:
        return any(goes_on() for goes_on in list(self._users.values()))

    def _end(self) -> None:
        self._stopped.set()
        if self._asker is not None:
            self._asker.join(0.2)  # it may be asking a server that does not answer; it ends soon by itself
            self._asker = None
        self._watch.uninstall()

    # Signals

    def _new_watch(self) -> SignalWatch:
        return SignalWatch(self._signals, self.grace, under_way=self._is_under_way, heard=self._heard)

    def _heard(self, number: int) -> None:
        self._notice = self._notice or Notice.within(signal.Signals(number).name, self.grace)

    # Clouds

    def _ask(self) -> None:
        stopped, clouds = threading.Event(), [_Asked(cloud) for cloud in self._clouds]
        self._stopped = stopped
        if clouds:
            self._asker = keep_at(lambda: self._look(stopped, clouds), "preemption", pause=self.poll)

    def _look(self, stopped: threading.Event, clouds: list[_Asked]) -> bool:
        """Ask each cloud that may be ours, then rest; return whether there is more to do."""
        clouds[:] = [cloud for cloud in clouds if not cloud.foreign]
        for cloud in clouds if self._notice is None and self._is_under_way() else ():
            heard = cloud.look()
            self._notice = self._notice or heard
        return bool(clouds) and not stopped.wait(self.poll)


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
