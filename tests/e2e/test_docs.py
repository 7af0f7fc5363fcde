"""What README and docs show is run as it stands, page by page, against a real server."""

import re
import shlex
import sys
from pathlib import Path

import boto3
import pytest
from processes import finish

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GIVEN = """
import keras, numpy as np
x, y = np.random.rand(256, 8), np.random.rand(256, 1).round()
def build():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1)])
    model.compile(optimizer="adam", loss="mse", metrics=METRICS)
    return model
model = build()
"""


def blocks(page):
    return [(match[1], match[2]) for match in FENCE.finditer((ROOT / page).read_text())]


def commands(text):
    """Return the lines of a shell block that call our own command, without comments."""
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    return [line[1:] for line in lines if line[:1] == ["remote-ckpt"]]


@pytest.fixture
def bucket(get_server):
    """The bucket of the docs, empty, and the environment that leads there."""
    server = get_server("seaweedfs")
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=server.storage_options["key"],
        aws_secret_access_key=server.storage_options["secret"],
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="my-bucket")
    yield server.environment
    for page in client.get_paginator("list_objects_v2").paginate(Bucket="my-bucket"):
        for item in page.get("Contents", ()):
            client.delete_object(Bucket="my-bucket", Key=item["Key"])
    client.delete_bucket(Bucket="my-bucket")


@pytest.mark.timeout(900)  # a dozen programs, one after the other
@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_works(page, bucket, tmp_path):
    """All Python of a page in one process, in order; then its `remote-ckpt` commands."""
    python = [text for kind, text in blocks(page) if kind == "python"]
    shell = [command for kind, text in blocks(page) if kind in ("sh", "bash") for command in commands(text)]
    if not python:
        return
    program = tmp_path / "page.py"
    metrics = ["accuracy"] if any("val_accuracy" in text for text in python) else []
    program.write_text("\n".join([f"METRICS = {metrics}", GIVEN, *python]))
    run([sys.executable, str(program)], tmp_path, bucket)
    for command in shell:
        run([sys.executable, "-m", "remote_ckpt.cli", *command], tmp_path, bucket)


def run(command, folder, environment):
    done = finish(command, cwd=folder, env=environment)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_pages_are_looked_at():
    """A fence that is written another way, or is of a kind that is not run, would be skipped in silence."""
    assert sum(len([kind for kind, _ in blocks(page) if kind == "python"]) for page in PAGES) >= 12
    for page in PAGES:
        fences = [line for line in (ROOT / page).read_text().splitlines() if line.lstrip().startswith("```")]
        assert len(fences) == 2 * len(blocks(page)), page
        assert {kind for kind, _ in blocks(page)} <= {"python", "sh", "text", "console"}, page
