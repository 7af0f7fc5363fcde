"""Capturing a model: the file of a snapshot is, byte for byte, the one `save_weights` would have written then."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from remote_ckpt.capture import Capturer, WholeModelSnapshot
from remote_ckpt.weights_file import check, check_keras_archive

RNG = np.random.default_rng(0)
X = RNG.random((16, 8)).astype("float32")
Y = RNG.random((16, 4)).astype("float32")


def dense_model(**compile_arguments: Any) -> keras.Model:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, activation="relu"), layers.Dense(4)])
    model.compile(**{"optimizer": "adam", "loss": "mse", "metrics": ["mae"], **compile_arguments})
    return model


def train(model: keras.Model, x: Any = X, y: Any = Y) -> None:
    model.train_on_batch(x, y)


def saved(model: keras.Model, folder: Path) -> bytes:
    path = folder / "keras.weights.h5"
    model.save_weights(path)
    return path.read_bytes()


def written(snapshot: Any, folder: Path) -> bytes:
    path = folder / "ours.weights.h5"
    snapshot.write(path)
    return path.read_bytes()


def assert_frozen_truth(
    model: keras.Model, folder: Path, step: Callable[[keras.Model], object] = train, capturer: Capturer | None = None
) -> Capturer:
    """Capture, note what Keras would write, train on, write; twice, so that the template is used as well."""
    capturer = capturer or Capturer(model)
    for _ in range(3):
        snapshot = capturer.capture()
        expected = saved(model, folder)
        step(model)
        assert written(snapshot, folder) == expected
        if capturer.fallback_reason is None:
            check(folder / "ours.weights.h5")
    return capturer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.mark.parametrize("jit_compile", [False, True])
def test_a_snapshot_does_not_see_later_training(folder: Path, jit_compile: bool) -> None:
    model = dense_model(jit_compile=jit_compile)
    train(model)
    snapshots, expected = [], []
    capturer = Capturer(model)
    for _ in range(3):
        snapshots.append(capturer.capture())
        expected.append(saved(model, folder))
        model.fit(X, Y, epochs=2, verbose=0)
    assert [written(snapshot, folder) for snapshot in snapshots] == expected
    assert len(set(expected)) == 3


def test_capture_takes_references_not_copies() -> None:
    model = dense_model()
    train(model)
    snapshot = Capturer(model).capture()
    kernel = model.layers[0].kernel
    shared = [np.shares_memory(np.asarray(v), np.asarray(kernel.value.value())) for v in snapshot._values]
    assert sum(shared) == 1


def test_nbytes_is_the_size_of_the_tensors(folder: Path) -> None:
    model = dense_model()
    train(model)
    snapshot = Capturer(model).capture()
    tensors = sum(v.numpy().nbytes for v in model.weights + model.optimizer.variables)
    assert snapshot.nbytes == tensors
    assert len(written(snapshot, folder)) > tensors


def test_a_snapshot_is_written_once(folder: Path) -> None:
    model = dense_model()
    snapshot = Capturer(model).capture()
    snapshot.write(folder / "a.weights.h5")
    with pytest.raises(ValueError, match="before"):
        snapshot.write(folder / "b.weights.h5")
    snapshot.discard()


def test_a_model_that_was_never_compiled_or_trained(folder: Path) -> None:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4)])
    assert assert_frozen_truth(model, folder, step=lambda _: None).fallback_reason is None


def test_a_model_that_is_not_built_raises_as_keras_does(folder: Path) -> None:
    model = keras.Sequential([layers.Dense(4)])
    capturer = Capturer(model)
    with pytest.raises(ValueError, match="not yet been built"):
        capturer.capture()
    model.build((None, 8))
    model.compile("sgd", "mse")
    assert assert_frozen_truth(model, folder, capturer=capturer).fallback_reason is None


class TestStructureChanges:
    def test_a_layer_is_added(self, folder: Path) -> None:
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        model.add(layers.Dense(4))
        assert_frozen_truth(model, folder, step=lambda _: None, capturer=capturer)

    def test_a_layer_is_removed(self, folder: Path) -> None:
        model = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(4)])
        capturer = assert_frozen_truth(model, folder, step=lambda _: None)
        model.pop()
        assert_frozen_truth(model, folder, step=lambda _: None, capturer=capturer)

    def test_the_optimizer_is_built_later(self, folder: Path) -> None:
        model = dense_model()
        capturer = Capturer(model)
        first = capturer.capture()
        expected = saved(model, folder)
        train(model)
        assert written(first, folder) == expected
        assert_frozen_truth(model, folder, capturer=capturer)

    def test_the_model_is_compiled_again(self, folder: Path) -> None:
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        model.compile(keras.optimizers.SGD(momentum=0.9), "mae")
        assert_frozen_truth(model, folder, capturer=capturer)

    def test_layers_are_frozen_and_unfrozen(self, folder: Path) -> None:
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        for trainable in (False, True):
            model.layers[0].trainable = trainable
            model.compile("adam", "mse")
            assert_frozen_truth(model, folder, capturer=capturer)

    def test_lora_is_enabled(self, folder: Path) -> None:
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        model.layers[0].enable_lora(2)
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder, capturer=capturer)

    def test_the_model_is_quantized(self, folder: Path) -> None:
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        model.quantize("int8")
        assert_frozen_truth(model, folder, step=lambda m: m.predict(X, verbose=0), capturer=capturer)

    def test_a_layer_appears_in_a_list_of_a_subclassed_model(self, folder: Path) -> None:
        class Growing(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.blocks = [layers.Dense(8)]

            def call(self, x: Any) -> Any:
                for block in self.blocks:
                    x = block(x)
                return x

        model = Growing()
        model(X)
        capturer = assert_frozen_truth(model, folder, step=lambda m: m(X))
        model._tracker.unlock()
        model.blocks.append(layers.Dense(4))
        model(X)
        assert_frozen_truth(model, folder, step=lambda m: m(X), capturer=capturer)

    def test_a_layer_is_replaced_by_one_of_the_same_shape(self, folder: Path) -> None:
        class Swapping(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.head = layers.Dense(4)

            def call(self, x: Any) -> Any:
                return self.head(x)

        model = Swapping()
        model(X)
        capturer = assert_frozen_truth(model, folder, step=lambda m: m(X))
        model._tracker.unlock()
        model.head = layers.Dense(4)
        model(X)
        assert_frozen_truth(model, folder, step=lambda m: m(X), capturer=capturer)

    def test_a_wrapped_optimizer_gets_one_more_variable(self, folder: Path) -> None:
        inner = keras.optimizers.Adam()
        model = dense_model(optimizer=keras.optimizers.LossScaleOptimizer(inner))
        train(model)
        capturer = assert_frozen_truth(model, folder, step=lambda _: None)
        inner._variables.append(keras.Variable([1.0]))
        assert_frozen_truth(model, folder, step=lambda _: None, capturer=capturer)

    def test_a_layer_is_renamed(self, folder: Path) -> None:
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        model.layers[0].name = "another"
        assert_frozen_truth(model, folder, capturer=capturer)

    def test_an_ordinary_attribute_of_a_layer_costs_no_walk(self, folder: Path) -> None:
        """Annealing by an attribute is common; the layer is asked again, the model is not walked again."""
        model = dense_model()
        capturer = assert_frozen_truth(model, folder)
        plan = capturer._plan

        def anneal(model: keras.Model) -> None:
            train(model)
            model.layers[0].temperature = float(model.optimizer.iterations)

        assert_frozen_truth(model, folder, step=anneal, capturer=capturer)
        assert capturer._plan is plan

    def test_nothing_changes_during_an_ordinary_fit(self) -> None:
        model = dense_model()
        capturer = Capturer(model)
        model.fit(X, Y, validation_data=(X, Y), verbose=0)
        capturer.capture()
        plan = capturer._plan
        for _ in range(2):
            model.fit(X, Y, validation_data=(X, Y), verbose=0)
            capturer.capture()
        assert capturer._plan is plan


def functional_with_shared_layer() -> keras.Model:
    shared = layers.Dense(8, name="shared")
    first, second = keras.Input((8,)), keras.Input((8,))
    output = layers.Dense(4)(layers.add([shared(first), shared(second)]))
    return keras.Model([first, second], output)


class Tied(keras.layers.Layer):
    """Uses the kernel of another layer as its own."""

    def __init__(self, other: keras.layers.Dense) -> None:
        super().__init__()
        self.other = other

    def build(self, shape: Any) -> None:
        self.kernel = self.other.kernel
        super().build(shape)

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, keras.ops.transpose(self.kernel))


class TestModels:
    def test_a_layer_shared_between_two_paths(self, folder: Path) -> None:
        model = functional_with_shared_layer()
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder, step=lambda m: train(m, [X, X]))

    def test_a_variable_shared_between_two_layers(self, folder: Path) -> None:
        inputs = keras.Input((8,))
        dense = layers.Dense(4)
        model = keras.Model(inputs, Tied(dense)(dense(inputs)))
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder, step=lambda m: train(m, X, X))

    def test_models_within_models(self, folder: Path) -> None:
        inputs = keras.Input((8,))
        inner = keras.Sequential([layers.Dense(8), functional_with_one_layer(), layers.BatchNormalization()])
        model = keras.Model(inputs, layers.Dense(4)(inner(inputs)))
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder)

    def test_a_subclassed_model_with_layers_in_containers(self, folder: Path) -> None:
        class Branched(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.branches = {"a": layers.Dense(4), "b": [layers.Dense(4), layers.Dense(4)]}
                self.scale = self.add_weight(shape=(), initializer="ones", name="scale")

            def call(self, x: Any) -> Any:
                total = self.branches["a"](x)
                for layer in self.branches["b"]:
                    total = total + layer(x)
                return total * self.scale

        model = Branched()
        model.compile("adam", "mse")
        train(model)
        assert_frozen_truth(model, folder)

    def test_convolutions_attention_and_recurrence(self, folder: Path) -> None:
        inputs = keras.Input((8, 4))
        x = layers.Conv1D(4, 3, padding="same")(inputs)
        x = layers.MultiHeadAttention(2, 4)(x, x)
        x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
        x = layers.RNN([layers.GRUCell(4), layers.LSTMCell(4)])(x)
        model = keras.Model(inputs, layers.Dense(4)(layers.LayerNormalization()(x)))
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder, step=lambda m: train(m, RNG.random((4, 8, 4)), Y[:4]))

    def test_an_embedding_with_sparse_gradients(self, folder: Path) -> None:
        model = keras.Sequential([keras.Input((8,)), layers.Embedding(16, 4), layers.Flatten(), layers.Dense(4)])
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder, step=lambda m: train(m, RNG.integers(0, 16, (16, 8))))

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float64"])
    def test_precisions(self, folder: Path, policy: str) -> None:
        inputs = keras.Input((8,))
        x = layers.BatchNormalization(dtype=policy)(layers.Dense(8, dtype=policy)(inputs))
        model = keras.Model(inputs, layers.Dense(4, dtype=policy)(x))
        model.compile("adam", "mse", auto_scale_loss=True)
        assert_frozen_truth(model, folder)

    def test_loss_scaling(self, folder: Path) -> None:
        model = dense_model(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()))
        train(model)
        assert_frozen_truth(model, folder)

    def test_seed_generators(self, folder: Path) -> None:
        class Noisy(keras.layers.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.seeds = keras.random.SeedGenerator(7)
                self.state = self.seeds.state

            def call(self, x: Any) -> Any:
                return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)

        model = keras.Sequential([keras.Input((8,)), Noisy(), layers.Dropout(0.5, seed=3), layers.Dense(4)])
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder)

    def test_averaged_weights_swapped_in(self, folder: Path) -> None:
        """SwapEMAWeights swaps at the end of an epoch and back: the file must hold what was there in between."""
        found: list[tuple[bytes, bytes]] = []

        class Save(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                snapshot, expected = capturer.capture(), saved(self.model, folder)
                if waiting:
                    found.append((written(waiting[-1][0], folder), waiting[-1][1]))
                waiting.append((snapshot, expected))

        waiting: list[tuple[Any, bytes]] = []
        model = dense_model(optimizer=keras.optimizers.Adam(use_ema=True, ema_momentum=0.5))
        capturer = Capturer(model)
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True), Save()])
        assert [ours for ours, _ in found] == [theirs for _, theirs in found]
        assert len(found) == 3

    def test_lora_is_merged_afresh_each_time(self, folder: Path) -> None:
        model = dense_model()
        model.layers[0].enable_lora(2)
        model.layers[0].lora_kernel_b.assign(RNG.random((2, 8)))
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder)

    @pytest.mark.parametrize("mode", ["int8", "float8"])
    def test_quantized_layers(self, folder: Path, mode: str) -> None:
        model = dense_model()
        model.quantize(mode)
        assert_frozen_truth(model, folder, step=lambda m: m.predict(X, verbose=0))

    def test_quantized_layers_with_lora(self, folder: Path) -> None:
        model = dense_model()
        model.quantize("int8")
        model.layers[0].enable_lora(2)
        model.layers[0].lora_kernel_b.assign(RNG.random((2, 8)))
        model.compile("adam", "mse")
        assert_frozen_truth(model, folder)

    def test_preprocessing_layers(self, folder: Path) -> None:
        normalization = layers.Normalization()
        normalization.adapt(X)
        words = layers.TextVectorization(output_mode="tf_idf")
        words.adapt(["one two", "two three"])
        text, numbers = keras.Input((), dtype="string"), keras.Input((8,))
        x = layers.concatenate([words(text), normalization(numbers)])
        model = keras.Model([text, numbers], layers.Dense(4)(x))
        assert_frozen_truth(model, folder, step=lambda _: None)

    @pytest.mark.apart
    def test_one_writer_under_a_mirrored_strategy(self, folder: Path) -> None:
        result = subprocess.run(
            [sys.executable, "-c", MIRRORED, str(folder)], capture_output=True, text=True, timeout=240, check=False
        )
        assert result.returncode == 0, result.stderr[-3000:]


MIRRORED = """
import sys, pathlib
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from remote_ckpt.capture import Capturer
folder = pathlib.Path(sys.argv[1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.BatchNormalization(),
                              keras.layers.Dense(4)])
    model.compile("adam", "mse", jit_compile=False)
x, y = np.random.rand(16, 8), np.random.rand(16, 4)
model.fit(x, y, verbose=0)
capturer = Capturer(model)
for _ in range(3):
    snapshot = capturer.capture()
    model.save_weights(folder / "keras.weights.h5")
    expected = (folder / "keras.weights.h5").read_bytes()
    model.fit(x, y, verbose=0)
    snapshot.write(folder / "ours.weights.h5")
    assert (folder / "ours.weights.h5").read_bytes() == expected
assert capturer.fallback_reason is None, capturer.fallback_reason
"""


def functional_with_one_layer() -> keras.Model:
    inputs = keras.Input((8,))
    return keras.Model(inputs, layers.Dense(8)(inputs))


class Storing(keras.layers.Layer):
    """Writes what the test gives it."""

    def __init__(self, store: Callable[[Any, Any], None]) -> None:
        super().__init__()
        self._store = store
        self.kernel = self.add_weight(shape=(8, 4), name="kernel")
        self.count = 0

    def call(self, x: Any) -> Any:
        return keras.ops.matmul(x, self.kernel)

    def save_own_variables(self, store: Any) -> None:
        self._store(self, store)


def storing_model(store: Callable[[Any, Any], None]) -> keras.Model:
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8), Storing(store), layers.Dense(4)])
    model.compile("adam", "mse")
    return model


def count_up(model: keras.Model) -> None:
    train(model)
    model.layers[1].count += 1


class TestCustomSaving:
    def test_computed_arrays_numpy_scalars_and_lists_are_read_afresh(self, folder: Path) -> None:
        def store(layer: Storing, target: Any) -> None:
            target["kernel"] = layer.kernel
            target["doubled"] = layer.kernel * 2
            target["count"] = np.int64(layer.count)
            target["list"] = [layer.count, 1, 2]
            target["flag"] = layer.count > 1

        assert_frozen_truth(storing_model(store), folder, step=count_up)

    def test_an_array_that_is_changed_in_place(self, folder: Path) -> None:
        history = np.zeros(4)

        def store(layer: Storing, target: Any) -> None:
            target["history"] = history

        def step(model: keras.Model) -> None:
            history[:] += 1

        assert_frozen_truth(storing_model(store), folder, step=step)

    def test_strings_are_refused_as_keras_refuses_them(self) -> None:
        def store(layer: Storing, target: Any) -> None:
            target["text"] = "hello"

        with pytest.raises(ValueError, match="Invalid dtype"):
            Capturer(storing_model(store)).capture()

    def test_names_shapes_and_dtypes_that_change(self, folder: Path) -> None:
        def store(layer: Storing, target: Any) -> None:
            target["same"] = np.zeros(3, "int32" if layer.count % 2 else "float32")
            target["nested/name"] = layer.kernel
            target["seen"] = np.arange(layer.count)
            target[f"name{layer.count}"] = layer.kernel

        assert_frozen_truth(storing_model(store), folder, step=count_up)

    def test_raw_tensorflow_variables(self, folder: Path) -> None:
        raw = tf.Variable([1.0, 2.0])

        def store(layer: Storing, target: Any) -> None:
            target["raw"] = raw

        assert_frozen_truth(storing_model(store), folder, step=lambda _: raw.assign_add([1.0, 1.0]))

    def test_a_store_used_as_a_dictionary(self, folder: Path) -> None:
        def store(layer: Storing, target: Any) -> None:
            target["kernel"] = layer.kernel
            target["gone"] = layer.kernel
            assert "gone" in target
            assert len(target) == 2
            assert sorted(target.keys()) == ["gone", "kernel"]
            del target["gone"]
            target["copy"] = np.array(target["kernel"]) + 1

        assert assert_frozen_truth(storing_model(store), folder).fallback_reason is None

    def test_a_layer_that_decides_by_something_no_attribute_shows(self, folder: Path) -> None:
        chosen = ["a"]

        def store(layer: Storing, target: Any) -> None:
            target[chosen[0]] = layer.kernel

        def step(model: keras.Model) -> None:
            chosen[0] += "b"

        assert_frozen_truth(storing_model(store), folder, step=step)

    def test_an_optimizer_with_a_method_of_its_own(self, folder: Path) -> None:
        class Counting(keras.optimizers.SGD):
            def save_own_variables(self, store: Any) -> None:
                super().save_own_variables(store)
                store["marker"] = np.float32(self.iterations.numpy())

        assert_frozen_truth(dense_model(optimizer=Counting(momentum=0.9)), folder)

    def test_an_error_of_a_layer_is_raised_as_keras_raises_it(self) -> None:
        def store(layer: Storing, target: Any) -> None:
            raise RuntimeError("no state today")

        capturer = Capturer(storing_model(store))
        with pytest.raises(RuntimeError, match="no state today"):
            capturer.capture()
        assert capturer.fallback_reason is None

    def test_a_layer_that_a_property_conjures_up_is_walked_each_time(self, folder: Path) -> None:
        hidden = [layers.Dense(4)]
        hidden[0].build((None, 8))

        class Conjuring(keras.layers.Layer):
            @property
            def head(self) -> keras.layers.Layer:
                return hidden[0]

            def call(self, x: Any) -> Any:
                return x

        def step(model: keras.Model) -> None:
            hidden[0] = layers.Dense(5)
            hidden[0].build((None, 8))

        model = keras.Sequential([keras.Input((8,)), Conjuring(), layers.Dense(4)])
        assert assert_frozen_truth(model, folder, step=step).fallback_reason is None


class TestFallback:
    def test_a_store_with_unexpected_methods_leaves_it_to_keras_and_says_so_once(
        self, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def store(layer: Storing, target: Any) -> None:
            target["kernel"] = layer.kernel
            target._h5_entry_group.attrs["extra"] = 1

        with caplog.at_level(logging.WARNING, logger="remote_ckpt"):
            capturer = assert_frozen_truth(storing_model(store), folder)
        assert capturer.fallback_reason is not None
        assert "_h5_entry_group" in capturer.fallback_reason
        assert [record.levelname for record in caplog.records] == ["WARNING"]

    def test_a_model_with_its_own_save_weights_is_asked_to_save(self, folder: Path) -> None:
        class Own(keras.Sequential):
            def save_weights(self, filepath: Any, **arguments: Any) -> None:
                with h5py.File(filepath, "w") as file:  # another file no reader would load, and it is refused
                    file["mine"] = int(self.optimizer.iterations)

        model = Own([keras.Input((8,)), layers.Dense(4)])
        model.compile("adam", "mse")
        capturer = assert_frozen_truth(model, folder)
        assert "save_weights" in str(capturer.fallback_reason)

    def test_a_snapshot_that_is_not_written_leaves_no_file(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

        class Own(keras.Sequential):
            def save_weights(self, filepath: Any, **arguments: Any) -> None:
                Path(filepath).write_bytes(b"mine")

        snapshot = Capturer(Own([keras.Input((8,)), layers.Dense(4)])).capture()
        assert list(tmp_path.iterdir())
        snapshot.discard()
        assert not list(tmp_path.iterdir())


class TestWholeModel:
    @pytest.mark.parametrize("suffix", [".keras", ".h5"])
    @pytest.mark.filterwarnings("ignore")
    def test_it_is_saved_at_once_and_moved_later(self, folder: Path, suffix: str) -> None:
        model = dense_model()
        train(model)
        before = [v.numpy() for v in model.weights]
        scratch = folder / "scratch"
        scratch.mkdir()
        snapshot = WholeModelSnapshot(model, scratch, suffix)
        train(model)
        target = folder / f"model{suffix}"
        snapshot.write(target)
        assert snapshot.nbytes == target.stat().st_size
        (check_keras_archive if suffix == ".keras" else check)(target)
        assert not list(scratch.iterdir())
        loaded = keras.models.load_model(target, compile=False)
        assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, loaded.weights, strict=True))

    def test_a_failed_save_leaves_nothing_behind(self, folder: Path) -> None:
        with pytest.raises(ValueError):
            WholeModelSnapshot(dense_model(), folder, ".nonsense")
        assert not list(folder.iterdir())


def test_importing_capture_imports_no_framework() -> None:
    code = (
        "import sys, remote_ckpt.capture, remote_ckpt.weights_file\n"
        "sys.exit(bool({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
