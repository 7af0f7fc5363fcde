"""The whole way, save in training and load elsewhere, on Keras's other backends; each in a process of its own."""

import sys
from importlib.util import find_spec

import pytest
from processes import finish

PROGRAM = """
import sys
import keras
import numpy as np
from remote_ckpt import RemoteModelCheckpoint, load_best

def build():
    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(16, activation="relu")(inputs)))
    model.compile("adam", "mse")
    return model

x, y = np.random.rand(64, 8), np.random.rand(64, 1)
url = sys.argv[1] + "/{epoch:02d}.weights.h5"
checkpoint = RemoteModelCheckpoint(url, monitor="loss", save_best_only=True)
model = build()
model.fit(x, y, epochs=4, verbose=0, callbacks=[checkpoint])
assert checkpoint.run.best.epoch == 3, checkpoint.run.checkpoints
expected = model.predict(x, verbose=0)
loaded = build()
load_best(loaded, sys.argv[1])
assert np.array_equal(loaded.predict(x, verbose=0), expected)
assert int(loaded.optimizer.iterations) == int(model.optimizer.iterations) == 8

resumed = build()
again = RemoteModelCheckpoint(url, monitor="loss", save_best_only=True, resume="latest")
history = resumed.fit(x, y, epochs=6, verbose=0, callbacks=[again])
assert history.epoch[-2:] == [4, 5], history.epoch
print(keras.backend.backend(), "done")
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_saving_and_loading_on_another_backend(tmp_path, backend):
    """Keras's trainer for JAX keeps the weights outside the model during an epoch."""
    if find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-W", "error::UserWarning:remote_ckpt", "-c", PROGRAM, tmp_path / "run"]
    result = finish(command, env={"KERAS_BACKEND": backend})
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split()[-2:] == [backend, "done"]
