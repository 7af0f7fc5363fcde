"""What comes back: a restore brings back all that was saved, or an error or a warning says what it did not."""

from __future__ import annotations

import re
import sys

import keras
import numpy as np
import pytest
from keras import layers, optimizers
from models import Scores, data, fit, model
from processes import finish

from remote_ckpt import RemoteModelCheckpoint, Run, load_best, load_latest
from remote_ckpt.errors import RemoteCkptError

OURS = ("remote_ckpt", "WARNING")
NAMED = "w-{epoch:02d}.weights.h5"


def checkpoint(folder, name=NAMED, **options):
    return RemoteModelCheckpoint(str(folder / name), monitor="loss", mode="min", **options)


def equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def stack(*units, optimizer="adam", seed=1, **dense):
    """A stack of dense layers that ends in one unit."""
    keras.utils.set_random_seed(seed)
    made = keras.Sequential([keras.Input((4,)), *[layers.Dense(n, **dense) for n in (*units, 1)]])
    made.compile(optimizer, "mse")
    return made


def train(made, *callbacks, epochs=1, **options):
    x, y = data()
    return made.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=list(callbacks), **options)


def save(made, folder, name=NAMED):
    """Train for one epoch of four steps, and save."""
    train(made, checkpoint(folder, name))
    return made


class Subclassed(keras.Model):
    """A model whose `build` does not build its layers."""

    def __init__(self, units=8):
        super().__init__()
        self.hidden = layers.Dense(units, activation="relu")
        self.out = layers.Dense(1)

    def call(self, inputs):
        return self.out(self.hidden(inputs))


def subclassed(units=8, build=False):
    made = Subclassed(units)
    if build:
        made.build((None, 4))
    made.compile(keras.optimizers.Adam(0.01), "mse")
    return made


def refused(made, folder, *words, load=load_latest):
    """Expect a ValueError of ours that names the checkpoint, has these words, and leaves the model as it was."""
    before = made.get_weights()
    with pytest.raises(ValueError) as caught:
        load(made, str(folder))
    assert isinstance(caught.value, RemoteCkptError)
    text = str(caught.value)
    assert Run(str(folder)).latest.url in text
    for word in words:
        assert word in text, text
    assert equal(made.get_weights(), before)
    return text


# Weights


def test_layers_that_were_not_built_are_not_restored_in_silence(tmp_path):
    """Keras skips a layer without variables, and calls that loading."""
    save(subclassed(), tmp_path)
    made = Subclassed()
    made.built = True
    refused(made, tmp_path, "'hidden'", "has not been built", "Call the model once")


def test_a_model_that_was_not_built_is_told_to_be_called(tmp_path):
    """Sequential without an Input."""
    save(model(), tmp_path)
    made = keras.Sequential([layers.Dense(8), layers.Dense(1)])
    refused(made, tmp_path, "Input")


def test_layers_without_a_place_in_the_model_are_an_error(tmp_path):
    """Five saved, three in the model."""
    save(stack(4, 4, 4, 4), tmp_path)
    refused(stack(4, 4), tmp_path, "6 of the checkpoint's 10 arrays", "layers/dense_2", "strict=False")


def test_layers_that_the_checkpoint_lacks_are_an_error(tmp_path):
    """Three saved, five in the model."""
    save(stack(4, 4), tmp_path)
    refused(stack(4, 4, 4, 4), tmp_path, "6 of the model's 10 weights", "dense")


def test_another_shape_is_told_without_a_matrix(tmp_path):
    """Keras prints the values of the variable."""
    save(stack(8, 6), tmp_path)
    text = refused(stack(8, 7), tmp_path, "float32[8, 6]", "float32[8, 7]", "differ first at layer", "epoch 1 of ")
    assert "array(" not in text
    assert "[[" not in text


def test_another_dtype_is_an_error(tmp_path):
    """Loading would round what was saved."""
    save(stack(8), tmp_path)
    refused(stack(8, dtype="float16"), tmp_path, "float16", "float32")


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_whole_models_are_accounted_for_too(tmp_path, suffix):
    """The same rule for every format."""
    save(stack(4, 4), tmp_path, "w-{epoch:02d}" + suffix)
    refused(stack(4), tmp_path)
    refused(stack(4, 5), tmp_path)


@pytest.mark.parametrize("forgets", ["save_own_variables", "both"])
def test_a_layer_that_saves_nothing_is_missed(tmp_path, forgets):
    """Its weights would be random after every restore."""

    class Dense(layers.Dense):
        def save_own_variables(self, store):
            pass

    if forgets == "both":
        Dense.load_own_variables = lambda self, store: None

    def make():
        made = keras.Sequential([keras.Input((4,)), layers.Dense(3), Dense(1)])
        made.compile("adam", "mse")
        return made

    save(make(), tmp_path)
    refused(make(), tmp_path, "2 of the model's 4 weights are not in the checkpoint")


def test_a_layer_that_reads_only_half_of_its_arrays_is_noticed(tmp_path):
    """A loading method of the user's own is trusted only after it has run."""

    class Dense(layers.Dense):
        def load_own_variables(self, store):
            self._kernel.assign(store["0"])

    def make(kind):
        made = keras.Sequential([keras.Input((4,)), kind(3, name="own"), layers.Dense(1)])
        made.compile("adam", "mse")
        return made

    save(make(layers.Dense), tmp_path)
    made = make(Dense)
    before = made.get_weights()
    with pytest.raises(ValueError, match="not read"):
        load_latest(made, str(tmp_path))
    assert equal(made.get_weights(), before)


def test_a_loading_method_that_fails_leaves_the_model_as_it_was(tmp_path):
    """Layers before it were assigned already."""

    class Dense(layers.Dense):
        def load_own_variables(self, store):
            raise RuntimeError("no\n[[1. 2.]]")

    def make(kind):
        made = keras.Sequential([keras.Input((4,)), layers.Dense(5), kind(3, name="own")])
        made.compile("adam", "mse")
        return made

    trained = make(layers.Dense)
    trained.fit(data()[0], np.zeros((64, 3)), verbose=0, callbacks=[checkpoint(tmp_path)])
    assert "[[" not in refused(make(Dense), tmp_path, "RuntimeError: no")


def test_an_alias_of_a_layer_is_no_difference(tmp_path):
    """Keras finds a layer again under another attribute."""
    saved = save(subclassed(), tmp_path)
    made = subclassed()
    made(data()[0])
    made.a_first_name = made.out
    load_latest(made, str(tmp_path))
    assert equal(made.get_weights(), saved.get_weights())


def test_a_model_with_a_loading_method_of_its_own_loads_itself(tmp_path):
    """What it reads is its own affair; what it refuses is an error of ours."""
    saved = save(model(), tmp_path)

    class Own(keras.Sequential):
        def load_weights(self, filepath, **options):
            if self.refuses:
                raise ValueError("not this one")
            super().load_weights(filepath, **options)

    made = Own([keras.Input((4,)), *model(seed=2).layers])
    made.refuses = False
    load_latest(made, str(tmp_path))
    assert equal(made.get_weights(), saved.get_weights())
    made.refuses = True
    refused(made, tmp_path, "not this one")


# strict=False and optimizer=False


def test_transfer_learning_returns_what_was_taken(tmp_path):
    """Another head: its layer keeps its weights, the others are taken."""
    saved = save(stack(8, 6), tmp_path)
    made = stack(8, 7, seed=2)
    before = made.get_weights()
    restored = Run(str(tmp_path)).load(made, "latest", strict=False, optimizer=False)
    assert restored.checkpoint.epoch == 0
    assert len(restored.taken) == 2
    assert len(restored.not_taken) == len(restored.missing) == 4
    assert restored.not_taken[0] == "layers/dense_1/vars/0"
    assert equal(made.get_weights()[:2], saved.get_weights()[:2])
    assert equal(made.get_weights()[2:], before[2:])


@pytest.mark.parametrize("load", [load_best, load_latest])
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_strict_is_an_argument_of_every_way_to_load(tmp_path, load, suffix):
    """And for every format."""
    save(stack(8, 6), tmp_path, "w-{epoch:02d}" + suffix)
    restored = load(stack(8, 7, seed=2), str(tmp_path), strict=False, optimizer=False)
    assert len(restored.taken) == 2
    assert restored.not_taken


def test_nothing_taken_is_an_error_even_so(tmp_path):
    """A restore that restores nothing is not a success."""
    save(stack(8, 6), tmp_path)
    made = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    refused(made, tmp_path, load=lambda made, url: load_latest(made, url, strict=False))


def test_the_optimizer_can_be_left_out(tmp_path, caplog):
    """Its state stays, and no word of it."""
    save(stack(8), tmp_path)
    made = stack(8)
    load_latest(made, str(tmp_path), optimizer=False)
    assert int(made.optimizer.iterations) == 0
    assert not warnings_of(caplog)


# Optimizers


def warnings_of(caplog):
    return [record.getMessage() for record in caplog.records if (record.name, record.levelname) == OURS]


def slots(optimizer):
    return [np.array(variable) for variable in optimizer.variables]


def refused_state(made, folder, caplog, *words):
    """Expect one warning with these words, and the optimizer as a new one."""
    load_latest(made, str(folder))
    found = warnings_of(caplog)
    assert len(found) == 1, found
    for word in words:
        assert word in found[0], found[0]
    assert int(made.optimizer.iterations) == 0
    assert not any(value.any() for value in slots(made.optimizer) if value.ndim)


@pytest.mark.parametrize("named", [{}, {"name": "mine"}])
def test_another_optimizers_slots_are_not_taken_over(tmp_path, caplog, named):
    """RMSprop's and Adagrad's have the same shapes; and a name of the user's own hides the class in the file."""
    saved = save(stack(8, optimizer=optimizers.RMSprop(**named)), tmp_path)
    made = stack(8, optimizer=optimizers.Adagrad(initial_accumulator_value=0.0, **named), seed=2)
    refused_state(made, tmp_path, caplog, "Adagrad", "state of RMSprop")
    assert equal(made.get_weights(), saved.get_weights())


def test_a_pushed_files_optimizer_is_known_by_its_name(tmp_path, caplog):
    """No record describes it."""
    made = stack(8, optimizer=optimizers.RMSprop())
    train(made)
    made.save_weights(tmp_path / "a.weights.h5")
    Run(str(tmp_path / "run")).push(tmp_path / "a.weights.h5", score=1.0)
    other = stack(8, optimizer=optimizers.Adagrad(initial_accumulator_value=0.0))
    refused_state(other, tmp_path / "run", caplog, "state of RMSprop")


def test_slots_of_other_layers_are_not_taken_over(tmp_path, caplog):
    """One layer frozen instead of another of the same shape."""

    def make(frozen):
        made = stack(4, 4)
        made.layers[frozen].trainable = False
        made.compile("adam", "mse")
        return made

    save(make(0), tmp_path)
    refused_state(make(1), tmp_path, caplog, "other variables")


def test_a_base_that_was_unfrozen_is_told(tmp_path, caplog):
    """And the first step after it works."""
    made = stack(4, 4)
    made.layers[0].trainable = False
    made.compile("adam", "mse")
    save(made, tmp_path)
    other = stack(4, 4)
    refused_state(other, tmp_path, caplog, "Adam")
    train(other)
    assert int(other.optimizer.iterations) == 4


def test_a_learning_rate_schedule_is_named(tmp_path, caplog):
    """It has one variable less."""
    save(stack(4), tmp_path)
    made = stack(4, optimizer=optimizers.Adam(optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)))
    refused_state(made, tmp_path, caplog, "learning-rate schedule")


def test_a_model_that_is_not_compiled_is_told_that_state_was_left(tmp_path, caplog):
    """Compiled afterwards, it would begin at step 0."""
    save(stack(4), tmp_path)
    made = keras.Sequential([keras.Input((4,)), layers.Dense(4), layers.Dense(1)])
    load_latest(made, str(tmp_path))
    assert "compile it before loading" in "".join(warnings_of(caplog))


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_the_optimizer_comes_back_in_every_format(tmp_path, suffix, caplog):
    """Steps and slots."""
    saved = save(model(), tmp_path, "w-{epoch:02d}" + suffix)
    made = model(seed=2)
    load_latest(made, str(tmp_path))
    assert int(made.optimizer.iterations) == 4
    assert equal(slots(made.optimizer), slots(saved.optimizer))
    assert not warnings_of(caplog)


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_a_loss_scale_optimizer_comes_back(tmp_path, suffix, caplog):
    """An optimizer in an optimizer; Keras makes one for mixed precision."""

    def make():
        return stack(8, optimizer=optimizers.LossScaleOptimizer(optimizers.Adam()))

    saved = save(make(), tmp_path, "w-{epoch:02d}" + suffix)
    made = make()
    load_latest(made, str(tmp_path))
    assert equal(slots(made.optimizer), slots(saved.optimizer))
    assert not warnings_of(caplog)


class Gan(keras.Model):
    """Two optimizers that are not `model.optimizer`."""

    def __init__(self, units=6):
        super().__init__()
        self.d = keras.Sequential([keras.Input((4,)), layers.Dense(units), layers.Dense(1)])
        self.g = keras.Sequential([keras.Input((2,)), layers.Dense(units), layers.Dense(4)])
        self.built = True

    def compile(self):
        super().compile()
        self.d_optimizer = optimizers.Adam(name="one")
        self.g_optimizer = optimizers.Adam(name="two")

    def call(self, inputs):
        return self.d(inputs)

    def train_step(self, batch):
        import tensorflow as tf

        x, y = batch
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self.d(x) - tf.cast(y[:, None], "float32")) ** 2)
        self.d_optimizer.apply_gradients(
            zip(tape.gradient(loss, self.d.trainable_weights), self.d.trainable_weights, strict=True)
        )
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(self.d(self.g(x[:, :2])) ** 2)
        self.g_optimizer.apply_gradients(
            zip(tape.gradient(loss, self.g.trainable_weights), self.g.trainable_weights, strict=True)
        )
        return {"loss": loss}


def gan():
    made = Gan()
    made.compile()
    return made


def test_all_optimizers_of_a_model_come_back(tmp_path, caplog):
    """A GAN's two, which are built by their first step."""
    saved = gan()
    train(saved, checkpoint(tmp_path))
    made = gan()
    train(made, checkpoint(tmp_path, resume="latest"), epochs=1)
    for name in ("d_optimizer", "g_optimizer"):
        assert int(getattr(made, name).iterations) == 4
        assert equal(slots(getattr(made, name)), slots(getattr(saved, name)))
    assert not warnings_of(caplog)
    train(made, epochs=1)
    assert int(made.g_optimizer.iterations) == 8


# resume=


def test_resume_builds_a_model_from_the_first_batch(tmp_path):
    """`build` had left its layers without variables: training went on from random weights."""
    first = subclassed(build=True)
    train(first, checkpoint(tmp_path), epochs=30)
    second = subclassed(build=True)
    history = train(second, checkpoint(tmp_path, resume="latest"), epochs=31)
    assert history.epoch == [30]
    assert history.history["loss"][0] < 1.2 * first.evaluate(*data(), verbose=0)
    assert int(second.optimizer.iterations) == 31 * 4


def test_resume_works_without_an_input(tmp_path):
    """Sequential, which has no layers' variables before its first batch."""

    def make(seed):
        keras.utils.set_random_seed(seed)
        made = keras.Sequential([layers.Dense(8), layers.Dropout(0.5), layers.Dense(1)])
        made.compile("adam", "mse")
        return made

    first = make(1)
    train(first, checkpoint(tmp_path, resume="latest"))
    second = make(2)
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: seen.append(second.get_weights()))
    train(second, checkpoint(tmp_path, resume="latest"), look, epochs=2)
    assert equal(seen[0], first.get_weights())


def test_a_dataset_builds_a_model_too(tmp_path):
    """Batches of a dictionary, from a tf.data pipeline."""
    import tensorflow as tf

    class Named(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = layers.Dense(1)

        def call(self, inputs, training=False):
            return self.out(inputs["a"] + inputs["b"])

    def run(**options):
        made = Named()
        made.compile("adam", "mse")
        x, y = data()
        batches = tf.data.Dataset.from_tensor_slices(({"a": x, "b": x}, y)).batch(16)
        made.fit(batches, epochs=1, verbose=0, callbacks=[checkpoint(tmp_path, **options)])
        return made

    first = run(resume="latest")
    second = run(resume="latest")
    assert equal(second.get_weights(), first.get_weights())


def test_a_model_that_cannot_be_built_is_refused_at_the_first_start(tmp_path):
    """Not at the second, when a night's training is to go on."""

    class Stubborn(Subclassed):
        def call(self, inputs):
            if isinstance(inputs, keras.KerasTensor) or not hasattr(inputs, "numpy"):
                raise TypeError("numbers only")
            return super().call(inputs)

    made = Stubborn()
    made.compile("adam", "mse", run_eagerly=True)
    with pytest.raises(ValueError, match="numbers only") as caught:
        train(made, checkpoint(tmp_path, resume="latest"))
    assert isinstance(caught.value, RemoteCkptError)
    assert "Call the model once" in str(caught.value)


def test_resume_never_trains_from_weights_that_did_not_come_back(tmp_path):
    """And prunes nothing."""
    train(stack(4, 4), checkpoint(tmp_path, keep_last=1))
    with pytest.raises(ValueError, match="does not fit"):
        train(stack(4), checkpoint(tmp_path, keep_last=1, resume="latest"), epochs=2)
    assert [record.epoch for record in Run(str(tmp_path)).checkpoints] == [0]


def test_nothing_is_pruned_after_a_resume_that_was_not_whole(tmp_path, caplog):
    """The old checkpoint is the only one with that state."""
    train(stack(4), checkpoint(tmp_path, keep_last=1))
    made = stack(4, optimizer="sgd")
    train(made, checkpoint(tmp_path, keep_last=1, resume="latest"), epochs=4)
    assert [record.epoch for record in Run(str(tmp_path)).checkpoints] == [0, 1, 2, 3]
    assert sum("Nothing is deleted" in message for message in warnings_of(caplog)) == 1


def test_a_whole_resume_prunes_as_asked(tmp_path):
    """The rule has not changed."""
    train(stack(4), checkpoint(tmp_path, keep_last=1))
    train(stack(4), checkpoint(tmp_path, keep_last=1, resume="latest"), epochs=3)
    assert len(Run(str(tmp_path)).checkpoints) < 3


class EndAfter(keras.callbacks.Callback):
    """Ends training before the epochs that `fit` was asked for are over."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == self.last


def test_best_weights_come_back_beside_averaged_ones(tmp_path):
    """EarlyStopping's are read from another checkpoint, and the model is as it was resumed in the end."""

    def parts():
        stopping = keras.callbacks.EarlyStopping("val_score", mode="max", patience=9, restore_best_weights=True)
        return stopping, keras.callbacks.SwapEMAWeights(swap_on_epoch=True)

    def make():
        return stack(8, optimizer=optimizers.Adam(use_ema=True))

    def run(made, last=None, resume=None):
        stopping, swap = parts()
        saving = RemoteModelCheckpoint(
            str(tmp_path / NAMED), "val_score", mode="max", riders=[stopping, swap], resume=resume
        )
        look = keras.callbacks.LambdaCallback(on_epoch_begin=lambda e, logs: seen.append(made.get_weights()))
        fit(made, [Scores(0.5, 0.4, 0.3), swap, stopping, saving, look, EndAfter(last)], epochs=3)
        return stopping

    seen = []
    straight = run(make())
    expected, seen = seen[2], []
    for path in tmp_path.glob("*"):
        if path.is_file():
            path.unlink()
    run(make(), last=1)
    seen = []
    resumed = run(make(), resume="latest")
    assert all(np.allclose(one, other, atol=1e-6) for one, other in zip(seen[0], expected, strict=True))
    assert resumed.best_epoch == straight.best_epoch == 0
    assert equal(resumed.best_weights, straight.best_weights)


# Vocabularies


def texts(kind, vocabulary=("a", "b", "c")):
    if kind == "vectorization":
        made = layers.TextVectorization(output_sequence_length=2)
    else:
        made = layers.StringLookup(num_oov_indices=1)
    if vocabulary:
        made.adapt(np.array(vocabulary))
    inputs = keras.Input((1,) if kind == "lookup" else (), dtype="string")
    out = layers.Dense(1)(layers.Flatten()(layers.Embedding(8, 2)(made(inputs))))
    whole = keras.Model(inputs, out)
    whole.compile("adam", "mse")
    return whole, made


@pytest.mark.parametrize("kind", ["vectorization", "lookup"])
def test_a_vocabulary_comes_back(tmp_path, kind, caplog):
    """Keras's load_weights leaves a fresh model with an empty one."""
    import tensorflow as tf

    saved, words = texts(kind)
    x = tf.constant([["a"], ["b"]]) if kind == "lookup" else tf.constant(["a b", "c"])
    saved.fit(x, np.zeros((2, 1)), verbose=0, callbacks=[checkpoint(tmp_path, "w-{epoch:02d}.keras")])
    fresh, others = texts(kind, ())
    load_latest(fresh, str(tmp_path))
    assert others.get_vocabulary() == words.get_vocabulary()
    assert np.array_equal(fresh.predict(x, verbose=0), saved.predict(x, verbose=0))
    assert not warnings_of(caplog)


def test_a_vocabulary_that_a_weights_file_cannot_have_is_told(tmp_path, caplog):
    """Nothing would be looked up."""
    import tensorflow as tf

    saved, _ = texts("lookup")
    saved.fit(tf.constant([["a"], ["b"]]), np.zeros((2, 1)), verbose=0, callbacks=[checkpoint(tmp_path)])
    load_latest(texts("lookup", ())[0], str(tmp_path))
    assert re.search(r"has no vocabulary.*\.keras", "".join(warnings_of(caplog)))


# Our own files


@pytest.mark.slow
def test_forty_one_nested_models_load(tmp_path):
    """Each takes two levels in the file."""

    def make():
        inputs = keras.Input((4,))
        made = keras.Model(inputs, layers.Dense(1)(inputs))
        for _ in range(41):
            inputs = keras.Input((4,))
            made = keras.Model(inputs, made(inputs))
        made.compile("sgd", "mse")
        return made

    saved = save(make(), tmp_path)
    made = make()
    load_latest(made, str(tmp_path))
    assert equal(made.get_weights(), saved.get_weights())


@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_what_no_reader_would_load_is_refused_when_it_is_saved(tmp_path, monkeypatch, caplog, suffix):
    """With the reason, and training goes on."""
    monkeypatch.setattr("remote_ckpt.weights_file._check.MAX_OBJECTS", 10)
    train(stack(4), checkpoint(tmp_path, "w-{epoch:02d}" + suffix))
    assert Run(str(tmp_path)).latest is None
    assert "no reader would load" in "".join(warnings_of(caplog))
    assert "more than 10 objects" in "".join(warnings_of(caplog))


# Strategies

MIRRORED = """
import sys
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import keras
from remote_ckpt import RemoteModelCheckpoint, load_best

def make():
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
    return model

x, y = np.random.rand(32, 4), np.random.rand(32, 1)
url = sys.argv[1] + "/w-{epoch:02d}.weights.h5"
first = make()
first.fit(x, y, verbose=0, callbacks=[RemoteModelCheckpoint(url, "loss")])
second = make()
load_best(second, sys.argv[1])
assert all(np.array_equal(a, b) for a, b in zip(first.get_weights(), second.get_weights()))
assert int(keras.ops.convert_to_numpy(second.optimizer.iterations)) == 1
third = make()
history = third.fit(x, y, epochs=2, verbose=0, callbacks=[RemoteModelCheckpoint(url, "loss", resume="latest")])
assert history.epoch == [1], history.epoch
print("done")
"""


@pytest.mark.slow
def test_a_model_of_a_strategy_is_restored_outside_its_scope(tmp_path):
    """TensorFlow raises a bare RuntimeError where the model's own scope is not entered."""
    result = finish([sys.executable, "-c", MIRRORED, tmp_path / "run"])
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split()[-1:] == ["done"]
