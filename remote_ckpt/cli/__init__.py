"""The command line, `remote-ckpt`: one module per command."""
