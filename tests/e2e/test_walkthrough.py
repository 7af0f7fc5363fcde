"""The walkthrough says what really happens."""

import re

import pytest
from walkthrough import PAGE, commands, masked, walk

from remote_ckpt.testing.servers import start

KILLED_WHEN = ("remote-ckpt recover", "remote-ckpt ls s3://checkpoints/spot | tail")
"""What these say depends on the instant at which the training before them was killed."""


@pytest.mark.slow
def test_what_the_walkthrough_shows_is_what_happens(tmp_path):
    """Each line that it shows is said, whatever the numbers in it; none of the commands fails."""
    shown = commands(PAGE.read_text())
    with start("seaweedfs") as server:
        said = walk([command for command, _ in shown], tmp_path, server.environment)
    assert sum(len(lines) for _, lines in shown) > 100
    for (command, lines), real in zip(shown, said, strict=True):
        heard = {masked(line) for line in real}
        told = [line for line in lines if re.search(r"[a-z]{3}", line) and " saves, " not in line]
        missing = [line for line in told if masked(line) not in heard]
        assert not missing or command.startswith(KILLED_WHEN), f"$ {command}\n{missing}\n" + "\n".join(real)
