"""Saving in a single process of a joint training of several processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def apart() -> Iterator[None]:
    """Let Keras create objects in this process alone, not in all processes of a distribution. For the training thread.

    During a walk through a model, Keras creates an object of each kind to find the attributes to skip. Under a
    distribution, JAX creates the variables of such an object in all processes together: a process that saves alone
    would wait for ever (seen with Keras 3.15).
    """
    from keras import distribution

    together = distribution.distribution()
    if together is None:
        yield
        return
    distribution.set_distribution(None)
    try:
        yield
    finally:
        distribution.set_distribution(together)
