"""Files that Keras itself wrote, pushed and loaded again."""

import numpy as np
import pytest
from models import data, fit, model

from remote_ckpt import Run, load_best


@pytest.mark.parametrize("name", ["mine.weights.h5", "mine.keras", "mine.h5"])
def test_what_keras_saved_is_pushed_and_loaded(tmp_path, name):
    """Weights, whole models, and the older format; the optimizer's state included."""
    trained = model(seed=1)
    fit(trained, [], epochs=2)
    if name.endswith(".weights.h5"):
        trained.save_weights(tmp_path / name)
    else:
        trained.save(tmp_path / name)
    record = Run(tmp_path / "run").push(tmp_path / name, score=0.75, epoch=1, monitor="val_accuracy")
    other = model(seed=2)
    assert load_best(other, tmp_path / "run") == record
    x, _ = data()
    np.testing.assert_array_equal(other.predict(x, verbose=0), trained.predict(x, verbose=0))
    if name != "mine.h5":  # load_weights of the older format leaves the optimizer as it is
        assert int(other.optimizer.iterations) == int(trained.optimizer.iterations) > 0
