"""Saving in one process of several that train one model together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def apart() -> Iterator[None]:
    """Let Keras make what it makes on its way through a model in this process alone. For the training thread.

    Keras makes an object of each kind to learn which attributes to skip. Under a distribution JAX has all processes
    make the variables of such an object together, and a process that saves alone would wait for ever (seen, 3.15).
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
