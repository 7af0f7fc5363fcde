"""Capturing on the backends of Keras that donate or update their buffers; each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

OTHER_BACKEND = """
import os, sys, pathlib
import numpy as np, keras
from remote_ckpt.capture import Capturer
assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
folder = pathlib.Path(sys.argv[1])
for dtype in ("float32", "bfloat16"):
    inputs = keras.Input((8,))
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(keras.layers.Dense(8, dtype=dtype)(inputs)))
    model = keras.Model(inputs, keras.layers.Dense(4)(x))
    model.compile("adam", "mse")
    capturer = Capturer(model)
    x, y = np.random.rand(16, 8), np.random.rand(16, 4)

    class Save(keras.callbacks.Callback):
        found = []
        def on_train_batch_end(self, batch, logs=None):
            snapshot = capturer.capture()
            self.model.save_weights(folder / "keras.weights.h5")
            self.found.append((snapshot, (folder / "keras.weights.h5").read_bytes()))

    model.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[Save()])
    for snapshot, expected in Save.found:
        snapshot.write(folder / "ours.weights.h5")
        assert (folder / "ours.weights.h5").read_bytes() == expected
    assert len({expected for _, expected in Save.found}) == 8
    assert capturer.fallback_reason is None, capturer.fallback_reason
"""


@pytest.mark.apart
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_snapshot_is_a_copy_where_the_backend_does_not_share(tmp_path: Path, backend: str) -> None:
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    result = subprocess.run(
        [sys.executable, "-c", OTHER_BACKEND, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "KERAS_BACKEND": backend},
    )
    assert result.returncode == 0, result.stderr[-3000:]
