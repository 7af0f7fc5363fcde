"""Files that somebody damaged on purpose, and a process of its own to load them in: the HDF5 library may crash."""

from __future__ import annotations

import random
import resource
import signal
import sys
from pathlib import Path
from typing import Any

MEMORY = 4 << 30
"""Bytes of address space; TensorFlow alone takes about two GiB of it."""


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with a few bits, bytes, numbers or stretches changed, or cut."""
    spoilt = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(spoilt))
        width = chance.choice((1, 2, 4, 8))
        kind = chance.randrange(5)
        if kind == 0:
            spoilt[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            spoilt[at] = chance.randrange(256)
        elif kind == 2:
            numbers = (0, 1, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, len(data), chance.randrange(len(data)))
            spoilt[at : at + width] = (chance.choice(numbers) % (1 << 8 * width)).to_bytes(width, "little")
        elif kind == 3:
            source = chance.randrange(len(spoilt))
            spoilt[at : at + 8 * width] = spoilt[source : source + 8 * width]
        elif chance.random() < 0.1:
            del spoilt[chance.randrange(1, len(spoilt)) :]
    return bytes(spoilt)


def load_damaged(path: str, first: str, count: str) -> None:
    """Load `count` damaged copies of a file into the model that wrote it; print how many were refused and loaded.

    Whatever happens is an error of ours; a crash ends the process.
    """
    from models import model

    from remote_ckpt.errors import ArchitectureError, CorruptCheckpointError
    from remote_ckpt.restore import load_into

    made = model()
    good, suffix = Path(path).read_bytes(), Path(path).name.partition(".")[2]
    copy = Path(path).with_name(f"damaged.{suffix}")
    told: dict[str, int] = {}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in range(int(first), int(first) + int(count)):
        print(f"seed {seed}", file=sys.stderr, flush=True)
        copy.write_bytes(damage(good, random.Random(seed)))
        signal.alarm(20)
        outcome: Any = "loaded"
        try:
            load_into(made, copy, "s3://bucket/run/w.weights.h5")
        except CorruptCheckpointError:
            outcome = "refused"
        except ArchitectureError:
            outcome = "another architecture"
        told[outcome] = told.get(outcome, 0) + 1
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 256 << 10, f"memory grew by {grown} KiB"
    print(told)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
