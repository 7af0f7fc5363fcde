"""The walkthrough says what really happens."""

import re

import pytest
from walkthrough import PAGE, commands, masked, walk


@pytest.mark.slow
@pytest.mark.parametrize("server", ["seaweedfs"], indirect=True)
def test_what_the_walkthrough_shows_is_what_happens(server, tmp_path):
    """Each line that it shows is said, whatever the numbers in it; none of the commands fails."""
    shown = commands(PAGE.read_text())
    said = walk([command for command, _ in shown], tmp_path, server.environment)
    assert len(shown) > 15
    for (command, lines), real in zip(shown, said, strict=True):
        heard = {masked(line) for line in real}
        missing = [line for line in lines if re.search(r"[a-z]{3}", line) and masked(line) not in heard]
        assert not missing, f"$ {command}\n" + "\n".join(real)
