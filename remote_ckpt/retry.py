"""Time-budgeted retry over our own errors; the only import of tenacity."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_before_delay,
    wait_random_exponential,
)

from remote_ckpt.errors import OutcomeUnknownError, TransientError

T = TypeVar("T")
log = logging.getLogger("remote_ckpt")


@dataclass(frozen=True)
class RetryPolicy:
    """How long to keep trying, and how to wait.

    Attributes:
        deadline: Seconds from the first attempt after which no new attempt starts. Attempts are not counted: the
            layers below may retry as well, and counts would multiply.
        first_wait: Seconds; the upper bound of the first wait. Waits are uniform over [0, bound] ("full jitter",
            AWS Architecture Blog 2015), and the bound doubles.
        longest_wait: Seconds; the bound never exceeds it.
        sleep: How to wait; tests give one that does not.
    """

    deadline: float = 600.0
    first_wait: float = 0.2
    longest_wait: float = 15.0
    sleep: Callable[[float], None] = time.sleep


def is_safe_to_repeat(error: BaseException) -> bool:
    """Return whether the request certainly was not applied, or may be applied twice without harm."""
    return isinstance(error, TransientError) and not isinstance(error, OutcomeUnknownError)


def is_transient(error: BaseException) -> bool:
    """Return whether trying again may help; for requests that may be applied twice without harm."""
    return isinstance(error, TransientError)


def call(
    attempt: Callable[[], T],
    policy: RetryPolicy,
    *,
    retry_on: Callable[[BaseException], bool] = is_transient,
    on_retry: Callable[[BaseException], None] | None = None,
) -> T:
    """Call `attempt` until it returns, fails for good, or the time is up; the last error is raised as it is."""
    return Retrying(sleep=policy.sleep, **_strategy(policy, retry_on, on_retry))(attempt)


async def call_async(
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    retry_on: Callable[[BaseException], bool] = is_transient,
    on_retry: Callable[[BaseException], None] | None = None,
) -> T:
    """The same for a coroutine function, on the running event loop; waits do not block the loop."""

    async def once() -> T:  # tenacity would not await what a lambda returns
        return await attempt()

    return await AsyncRetrying(sleep=asyncio.sleep, **_strategy(policy, retry_on, on_retry))(once)


def _strategy(
    policy: RetryPolicy,
    retry_on: Callable[[BaseException], bool],
    on_retry: Callable[[BaseException], None] | None,
) -> dict[str, Any]:
    return {
        "retry": retry_if_exception(retry_on),
        "stop": stop_before_delay(policy.deadline),
        "wait": wait_random_exponential(multiplier=policy.first_wait, max=policy.longest_wait),
        "before_sleep": _tell(on_retry),
        "reraise": True,
    }


def _tell(on_retry: Callable[[BaseException], None] | None) -> Callable[[RetryCallState], None]:
    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return
        log.info("Trying again in %.1f s (attempt %d): %s", state.upcoming_sleep, state.attempt_number, error)
        if on_retry is not None:
            on_retry(error)

    return before_sleep
