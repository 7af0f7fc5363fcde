"""Retry within a time budget, for this package's own errors; the only import of tenacity."""

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
    """The time budget of retries, and the waits between attempts.

    Attributes:
        deadline: Seconds from the first attempt after which no new attempt starts. The number of attempts is not
            limited: the layers below may retry as well, and numbers of attempts would multiply.
        first_wait: Seconds; the upper bound of the first wait. Waits are uniform over [0, bound] ("full jitter",
            AWS Architecture Blog 2015), and the bound doubles.
        longest_wait: Seconds; the largest bound of a wait.
        sleep: Waits the given seconds; tests pass a function that returns at once. `call_async` does not use it.
    """

    deadline: float = 600.0
    first_wait: float = 0.2
    longest_wait: float = 15.0
    sleep: Callable[[float], None] = time.sleep


def is_safe_to_repeat(error: BaseException) -> bool:
    """Return whether the request certainly was not applied, or may be applied twice without harm."""
    return isinstance(error, TransientError) and not isinstance(error, OutcomeUnknownError)


def is_transient(error: BaseException) -> bool:
    """Return whether trying again may help, for a request with the same effect when applied twice."""
    return isinstance(error, TransientError)


def call(
    attempt: Callable[[], T],
    policy: RetryPolicy,
    *,
    retry_on: Callable[[BaseException], bool] = is_transient,
    on_retry: Callable[[BaseException], None] | None = None,
) -> T:
    """Call `attempt` until success, a permanent error, or the end of the time budget; return the result.

    Args:
        attempt: One try.
        policy: The time budget (seconds) and the waits.
        retry_on: Whether to try again after this error.
        on_retry: Called with the error before each wait.

    Raises:
        BaseException: The last error of `attempt`, unchanged.
    """
    return Retrying(sleep=policy.sleep, **_strategy(policy, retry_on, on_retry))(attempt)


async def call_async(
    attempt: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    retry_on: Callable[[BaseException], bool] = is_transient,
    on_retry: Callable[[BaseException], None] | None = None,
) -> T:
    """Await `attempt` like `call`, on the running event loop; the waits do not block the loop."""

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
        # Give up before a wait that would end after the deadline, not after it.
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
