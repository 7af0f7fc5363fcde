"""The error tree keeps its word."""

import inspect

from remote_ckpt import errors


def test_every_error_is_drawn_in_the_module_docstring():
    """The picture is complete."""
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(kind, errors.RemoteCkptError), name
        assert name in errors.__doc__, name


def test_code_that_knows_only_python_does_the_right_thing():
    """Each is also Python's own error of its kind."""
    assert issubclass(errors.NoCheckpointError, LookupError)
    assert issubclass(errors.ManifestError, ValueError)
    assert issubclass(errors.AccessDeniedError, PermissionError)
    assert issubclass(errors.ObjectNotFoundError, FileNotFoundError)
    assert not issubclass(errors.AccessDeniedError, FileNotFoundError)


def test_messages_print_as_they_were_written():
    """KeyError would quote them."""
    assert str(errors.TemplateError("a 'b'\nc")) == "a 'b'\nc"
