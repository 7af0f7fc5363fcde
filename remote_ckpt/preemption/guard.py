"""`PreemptionGuard`: receives preemption notices, from signals and from the clouds."""

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

_ATTEMPTS = 3  # failures after which a cloud that has never answered is not asked again

UnderWay = Callable[[], bool]
"""Returns whether a training is still running. Called on any thread and inside signal handlers: must take no lock."""


class PreemptionGuard:
    """Receive preemption notices while a model trains; for `RemoteModelCheckpoint(..., preemption=…)`.

    After a notice, the callback saves at the end of the batch, ends training, and uses the time left for uploads.
    Several callbacks of one `fit` may share a guard.

    Signals: if `fit` runs in the main thread, handlers are installed for as long as training lasts, see `SignalWatch`.
    The first signal is a notice, detected at once even while the main thread is in native code, and is held back. Once
    training has ended, the signal takes the effect that it would have had without a guard: the earlier handler runs, or
    the process ends. A second signal is passed on at once, and the first at the latest when `grace` is over: no signal
    is ever swallowed, even if training hangs. After an exception that ended `fit`, later signals have their earlier
    effect at once; a signal that came before the exception stays held back for the rest of `grace`.

    A copy and an unpickled guard have the same settings, and do not listen yet.
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
        """Make a guard; a guard listens only during training.

        Args:
            grace: Seconds between a signal and the end: 30 for Kubernetes and `docker stop -t 30`, and 10 for
                `docker stop`.
            signals: What counts as a notice; none to leave signals alone.
            ec2: Whether to ask EC2's metadata server, or its URL; by default
                `AWS_EC2_METADATA_SERVICE_ENDPOINT`, and not where `AWS_EC2_METADATA_DISABLED` is true.
            gce: Whether to ask Compute Engine's, or its URL; by default `GCE_METADATA_HOST`, and not where
                `NO_GCE_CHECK` is true. A cloud whose first three answers fail is not asked again in this training.
            rebalance: Whether EC2's recommendation to rebalance is a notice as well.
            reraise: Whether a signal is raised again after training.
            poll: Seconds between two questions to the clouds.

        Raises:
            ValueError: A time is not above 0, or a URL is neither http:// nor https://.
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
        """The first notice of this or the last training, or None. Any thread."""
        return self._notice

    def start(self, user: Any, under_way: UnderWay = lambda: True) -> None:
        """Start listening on behalf of `user`. Idempotent.

        Forgets an earlier notice, unless the training of another user is still running or a signal is held back. On
        another thread than the main one, only the clouds are asked.

        Args:
            user: Kept by a weak reference; a user that is garbage no longer counts.
            under_way: Returns whether the user's training is still running; an exception may end it without `stop`.
        """
        # Not `if not self._users`: a user whose `fit` ended by an exception has not called `stop`.
        if not self._is_under_way() and not self._watch.holds_back:
            self._end()
            self._users.clear()
            self._notice = None
            self._watch = self._new_watch()
            self._watch.install()
            self._ask()
        self._users[user] = under_way

    def stop(self, user: Any) -> None:
        """Stop listening once no other user's training is running; then pass on a held-back signal. Idempotent.

        If that signal had no handler before, the process ends here. With `reraise` False the signal is dropped. Call
        this on the thread that called `start`.
        """
        if self._users.pop(user, None) is None or self._is_under_way():
            return
        # Asked before `_end`, after which the watch holds nothing back.
        held = self._watch.signal if self._watch.holds_back else None
        self._end()
        if held is not None and self.reraise:
            self._watch.pass_on(held)

    def forget(self, user: Any, under_way: UnderWay) -> None:
        """Stop listening after a training that ended without `stop`, by an exception.

        While a signal is held back, the handlers stay until `grace` is over. Does nothing after `stop`, or if `user`
        has begun another training since. Any thread; but handlers are given back on the main thread only.
        """
        if self._users.get(user) is under_way:  # `at_end` may come late, when `user` trains again
            del self._users[user]
            if not self._is_under_way() and not self._watch.holds_back:
                self._end()

    def _is_under_way(self) -> bool:
        # A copy: this runs on other threads too, while users come and go.
        return any(goes_on() for goes_on in list(self._users.values()))

    def _end(self) -> None:
        self._stopped.set()
        if self._asker is not None:
            self._asker.join(0.2)  # seconds; the thread may be waiting for a server, and then ends soon by itself
            self._asker = None
        self._watch.uninstall()

    # Signals

    def _new_watch(self) -> SignalWatch:
        return SignalWatch(self._signals, self.grace, under_way=self._is_under_way, heard=self._heard)

    def _heard(self, number: int) -> None:
        # Inside a signal handler or on the watch's thread, perhaps on both: the first notice stays.
        self._notice = self._notice or Notice.within(signal.Signals(number).name, self.grace)

    # Clouds

    def _ask(self) -> None:
        # The thread keeps its own event: if `_end` does not wait long enough, `_stopped` is soon another training's.
        stopped, clouds = threading.Event(), [_Asked(cloud) for cloud in self._clouds]
        self._stopped = stopped
        if clouds:
            self._asker = keep_at(lambda: self._look(stopped, clouds), "preemption", pause=self.poll)

    def _look(self, stopped: threading.Event, clouds: list[_Asked]) -> bool:
        """Ask the remaining clouds, then rest for `poll` seconds; return whether to go on.

        Asks only while a training is running and no notice was received. For the asking thread.
        """
        clouds[:] = [cloud for cloud in clouds if not cloud.foreign]
        for cloud in clouds if self._notice is None and self._is_under_way() else ():
            heard = cloud.look()
            self._notice = self._notice or heard  # a signal may have come during the request
        return bool(clouds) and not stopped.wait(self.poll)


@dataclass
class _Asked:
    """A cloud to ask, given up after `_ATTEMPTS` failures if there was never an answer."""

    cloud: Cloud
    failures: int = 0
    answered: bool = False

    @property
    def foreign(self) -> bool:
        return not self.answered and self.failures >= _ATTEMPTS

    def look(self) -> Notice | None:
        try:
            notice = self.cloud.look()
        except Exception as exc:  # noqa: BLE001 - whatever the server answers, listening must go on
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
