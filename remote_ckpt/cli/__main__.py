"""`python -m remote_ckpt.cli`, where the `remote-ckpt` script is not on the PATH."""

from remote_ckpt.cli import main

main()
