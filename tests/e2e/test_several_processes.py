"""`fit` in several processes that train one model: one saves, and all go on from the same checkpoint."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import pytest
from processes import finish

PROCESSES = 2

PROGRAM = """
import logging, sys
import jax
index, count, address, url, kind = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]
jax.distributed.initialize(address, count, index)
import keras, numpy as np, tensorflow as tf
from remote_ckpt import RemoteModelCheckpoint

logging.basicConfig(level=logging.INFO)
if kind == "data":
    keras.distribution.set_distribution(keras.distribution.DataParallel())
else:
    mesh = keras.distribution.DeviceMesh((1, count), ["batch", "model"])
    layouts = keras.distribution.LayoutMap(mesh)
    layouts[".*wide/kernel"] = (None, "model")
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False)
    )

def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, name="wide"), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model

x = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")

def fit(model, epochs, **options):
    data = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).batch(16)
    checkpoint = RemoteModelCheckpoint(
        url + "/{epoch:02d}.weights.h5", monitor="loss", riders=[history := keras.callbacks.History()], **options
    )
    model.fit(data.repeat(), steps_per_epoch=4, epochs=epochs, verbose=0, callbacks=[history, checkpoint])
    return checkpoint, history

model = build()
checkpoint, _ = fit(model, 2)
print(index, "saved", checkpoint.stats.saves)
if kind == "data":
    again, history = fit(build(), 3, resume="latest")
    print(index, "resumed after", again.resumed_from.epoch, again.resumed_from.id, history.epoch)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def train_together(url, kind):
    if find_spec("jax") is None:
        pytest.skip("jax is not installed")
    command = [sys.executable, "-c", PROGRAM]
    task = [PROCESSES, f"127.0.0.1:{free_port()}", url, kind]
    environment = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(lambda i: finish([*command, i, *task], env=environment), range(PROCESSES)))
    for result in results:
        assert result.returncode == 0, result.stderr[-3000:]
    return results


def test_one_of_several_processes_saves_and_all_resume_from_it(tmp_path):
    first, second = train_together(tmp_path / "run", "data")
    assert [path.name for path in sorted((tmp_path / "run").glob("*.h5"))] == [f"0{n}.weights.h5" for n in (1, 2, 3)]
    assert "0 saved 2" in first.stdout
    assert "1 saved 0" in second.stdout
    assert "this is process 2" in second.stderr
    resumed = [result.stdout.splitlines()[-1][2:] for result in (first, second)]
    assert resumed[0] == resumed[1]
    assert resumed[0].startswith("resumed after 1 ")
    assert resumed[0].endswith("[0, 1, 2]")


def test_weights_that_no_process_has_whole_are_told_of(tmp_path):
    """Training goes on; each epoch says what is wrong and what to do."""
    first, _ = train_together(tmp_path / "run", "model")
    assert "0 saved 0" in first.stdout
    assert "is spread over several processes" in first.stderr
    assert "DataParallel" in first.stderr
