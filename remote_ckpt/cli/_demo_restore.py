"""The demonstration's other machine: `python -m remote_ckpt.cli._demo_restore URL` prints the result as JSON."""

from __future__ import annotations

import sys

from remote_ckpt.cli._console import say_json
from remote_ckpt.cli._facts import as_json
from remote_ckpt.cli._pima import build_model, load_data
from remote_ckpt.run import load_best


def restore(url: str) -> None:
    """Load the best checkpoint into a new model and evaluate it on the data held out."""
    model = build_model()
    checkpoint = load_best(model, url)
    _, held_out = load_data()
    found = model.evaluate(*held_out, verbose=0, return_dict=True)
    say_json({"accuracy": float(found["accuracy"]), "checkpoint": as_json(checkpoint)})


if __name__ == "__main__":
    restore(sys.argv[1])
