"""The demonstration's training machine: `python -m remote_ckpt.cli._demo_train URL EPOCHS`."""

from __future__ import annotations

import sys

from remote_ckpt.callback import RemoteModelCheckpoint
from remote_ckpt.cli._console import say
from remote_ckpt.cli._pima import FIELD_NAME, build_model, load_data


def train(url: str, epochs: int) -> None:
    """Train on the Pima data, keeping each improvement under `url`."""
    training, held_out = load_data()
    checkpoint = RemoteModelCheckpoint(
        f"{url}/{FIELD_NAME}", monitor="val_accuracy", mode="max", save_best_only=True, on_error="raise"
    )
    model = build_model()
    model.fit(*training, validation_data=held_out, epochs=epochs, batch_size=10, verbose=0, callbacks=[checkpoint])
    checkpoint.close()
    say(f"trained {epochs} epochs: {checkpoint.stats.summary()}")


if __name__ == "__main__":
    train(sys.argv[1], int(sys.argv[2]))
