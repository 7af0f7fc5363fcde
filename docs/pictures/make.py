"""Make this folder's pictures from real runs: the model of the Pima example, with three optimizers.

    python docs/pictures/make.py FOLDER        # trains into FOLDER/pima, a few minutes

Then, as anybody would, in FOLDER:

    remote-ckpt plot pima/adam -o plot.png
    remote-ckpt report pima -o report.html     # and a browser's picture of it is report.png
"""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np

from remote_ckpt import RemoteModelCheckpoint

HERE = Path(__file__).resolve().parent
BROWSER = "chromium-headless-shell"
RUNS = {"adam": keras.optimizers.Adam, "rmsprop": keras.optimizers.RMSprop, "sgd": keras.optimizers.SGD}


def train(url: str, optimizer: keras.optimizers.Optimizer) -> None:
    """Train one run; every epoch is a checkpoint."""
    keras.utils.set_random_seed(7)
    rows = np.loadtxt(HERE.parents[1] / "examples/data/pima-indians-diabetes.csv", delimiter=",")
    x, y = rows[:, :8], rows[:, 8]
    scaled = keras.layers.Normalization()
    scaled.adapt(x)
    hidden = [keras.layers.Dense(12, activation="relu"), keras.layers.Dense(8, activation="relu")]
    model = keras.Sequential([keras.layers.Input((8,)), scaled, *hidden, keras.layers.Dense(1, activation="sigmoid")])
    model.compile(loss="binary_crossentropy", optimizer=optimizer, metrics=["accuracy"])
    filepath = f"{url}/weights-{{epoch:02d}}-{{val_accuracy:.2f}}.weights.h5"
    saving = RemoteModelCheckpoint(filepath, monitor="val_accuracy", mode="max", on_error="raise")
    model.fit(x, y, validation_split=0.33, epochs=150, batch_size=10, verbose=0, callbacks=[saving])
    saving.close()


def command(folder: Path, *arguments: str) -> None:
    """Run `remote-ckpt` in a folder."""
    subprocess.run([sys.executable, "-m", "remote_ckpt.cli", *arguments], cwd=folder, check=True)


def screenshot(page: Path, picture: Path) -> None:
    """Take a picture of a page as a browser shows it."""
    call = [BROWSER, "--no-sandbox", "--hide-scrollbars", "--window-size=1100,1010", f"--screenshot={picture}"]
    subprocess.run([*call, page.as_uri()], check=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    for name, optimizer in RUNS.items():
        train(str(folder / "pima" / name), optimizer())
    command(folder, "plot", "pima/adam", "-o", str(HERE / "plot.png"))
    command(folder, "report", "pima", "-o", "report.html")
    screenshot(folder / "report.html", HERE / "report.png")
