"""Locations of runs: a URL or path, split into the run's prefix and a filename template; and the rules for keys."""

from __future__ import annotations

import math
import os
import re
import string
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from remote_ckpt.errors import LocationError, TemplateError
from remote_ckpt.urls import redact as redact
from remote_ckpt.urls import split, text_of

MANIFEST_KEY = "manifest.json"
HIDDEN = ".remote_ckpt"
SUFFIXES = (".weights.h5", ".keras", ".h5")  # the longest match first: ".weights.h5" also ends with ".h5"

_PLAIN_FORMAT = re.compile(r"[+\- ]?0?\d*[,_]?(\.\d+)?[deEfFgGn%]?")
_NUMBER = r"[-+ ]*(?:\d[\d.,_]*(?:[eE][-+]?\d+)?%?|nan|inf|NAN|INF)"
_EXTRA = r"(?:-[A-Za-z0-9_-]{1,6}(?:-\d)?)?"  # see `Publisher`: the end of an id, and a count
_MAX_TEMPLATE = 2000
_MAX_KEY_BYTES = 900  # S3 and GCS allow 1024 for the whole key; the run's prefix needs room too
_MAX_OBJECT_BYTES = {"s3": 1024, "s3a": 1024, "gs": 1024, "gcs": 1024}  # of the whole key, by their documentation
_MAX_FILE_BYTES = 255  # of one part of a path, on nearly every filesystem
_MAX_PATH_BYTES = 4095  # Linux's PATH_MAX without the final zero
_ID = "x" * 16  # as long as an id, which is part of the key of an object with a copy under a fixed name
_ADDED = 64  # bytes; more than publishing ever adds to a name
_TAKEN = "xxxxxx-7"  # as long as the addition to a key that is taken, see `publisher`


@dataclass(frozen=True, repr=False)
class Location:
    """A run, and perhaps a filename template in the run.

    Attributes:
        protocol: fsspec's name of the store: `"s3"`, `"gs"`, `"memory"`; `"file"` for plain paths.
        run: The run's prefix as the user wrote it, without a trailing slash.
        root: The run's prefix, independent of the working directory. Equal to `run` except for local paths.
        template: The filename template relative to the run, or None when only a run was named.
    """

    protocol: str
    run: str
    root: str
    template: str | None = None

    @classmethod
    def parse(cls, url: str | os.PathLike[str]) -> Location:
        """Split a run's URL, or a filename template under it; the run ends before the first field.

        Raises:
            LocationError: `url` is neither a usable URL nor a path; see `urls`.
        """
        protocol, text = split(text_of(url))
        if protocol == "file":
            text = str(Path(text).expanduser()) + ("/" if text.endswith("/") else "")
        run, template = _split(text)
        if template is not None and protocol != "file" and "://" not in run:
            raise LocationError(f"{redact(text)!r} names no run. Write '{protocol}://…/run/{template}'.")
        root = os.path.abspath(run) if protocol == "file" else run
        return cls(protocol, run or "/", root or "/", template)

    def __repr__(self) -> str:
        return f"Location({self.name!r}, template={self.template!r})"

    def with_template(self, template: str) -> Location:
        """Return the same run with the filename template `template` (relative to the run)."""
        return replace(self, template=template)

    def below(self, folder: str) -> Location:
        """Return the run in a folder (`a/b`) below this run, always without a template."""
        run, root = (f"{prefix.rstrip('/')}/{folder}" for prefix in (self.run, self.root))
        return replace(self, run=run, root=root, template=None)

    def url(self, key: str) -> str:
        """Return the full URL (or path) of `key`, as the user would write it, without a password."""
        return redact(f"{self.run.rstrip('/')}/{key}")

    def check_template(self, template: NameTemplate, *, urgent: bool = False) -> None:
        """Refuse a filename template sure to fail in later saves; the values of the metrics are not yet known.

        Args:
            template: Relative to this run.
            urgent: Whether a save may come before the metrics were logged. Then each metric is `nan` in the name.

        Raises:
            LocationError: A field cannot be formatted, or the names are too long for the store.
        """
        self.check_name(template, template.sample(urgent=urgent))

    def check_name(self, template: NameTemplate, name: str) -> None:
        """Refuse a formatted name too long for the store, including the characters added by publishing.

        Raises:
            LocationError: The name is too long; the message gives the limit.
        """
        if len(f"{self.root}{name}".encode(errors="replace")) + _ADDED <= _MAX_FILE_BYTES:
            return  # short enough for every limit. A fast path: each save calls this while the training waits
        key = name if template.fields else f"{HIDDEN}/{NameTemplate.with_suffix_before_extension(name, _ID)}"
        key = NameTemplate.with_suffix_before_extension(key, _TAKEN)
        for what, size, limit in self._sizes(key):
            if size > limit:
                added = size - len(name.encode(errors="replace")) if what == "key" else 0
                room = f" ({added} of them for what may be added to it)" if added else ""
                raise LocationError(
                    f"{self.url(name)[:200]!r} is too long a name: as the {what} it takes {size} bytes{room}, and at "
                    f"most {limit} can be stored there. Shorten it."
                )

    def _sizes(self, key: str) -> list[tuple[str, int, int]]:
        """Return the limits for this key: a name of the limited thing, its size and its largest size, both in bytes."""
        whole = [("key", len(key.encode(errors="replace")), _MAX_KEY_BYTES)]
        if self.protocol == "file":
            path = f"{self.root}/{key}"
            part = max(len(part.encode(errors="replace")) for part in path.split("/"))
            all_parts = ("path", len(path.encode(errors="replace")), _MAX_PATH_BYTES)
            return [*whole, ("name of one file or folder", part, _MAX_FILE_BYTES), all_parts]
        if self.protocol in _MAX_OBJECT_BYTES:
            prefix = self.root.partition("://")[2].partition("/")[2]
            size = len(f"{prefix}/{key}".encode(errors="replace"))
            return [*whole, ("name of the object, with the run's prefix,", size, _MAX_OBJECT_BYTES[self.protocol])]
        return whole

    @property
    def name(self) -> str:
        """The run's URL for messages, without a password."""
        return redact(self.run)


def _split(text: str) -> tuple[str, str | None]:
    """Split at the last slash before the first field; a text without a known suffix or field is a run."""
    field = text.find("{")
    if field < 0 and not text.endswith(SUFFIXES):
        return text.rstrip("/"), None
    head = text if field < 0 else text[:field]
    cut = head.rfind("/")
    if cut < 0:
        return ".", text
    return text[:cut], text[cut + 1 :]


@dataclass(frozen=True)
class NameTemplate:
    """A filename template in Keras's own syntax, with the fields `{epoch:02d}`, `{batch}` and any logged metric."""

    text: str

    def __post_init__(self) -> None:
        if not self.text.endswith(SUFFIXES):
            raise LocationError(
                f"The filename {self.text!r} must end in '.weights.h5' (weights), or '.keras' or '.h5' (whole model)."
            )
        try:
            names = self.fields
        except ValueError as exc:
            raise LocationError(f"The filename template {self.text!r} is not a valid format string: {exc}.") from exc
        if reason := _unbounded(self.text):
            raise LocationError(f"The filename template {self.text[:200]!r} cannot be used: {reason}.")
        if any(not name or name.isdigit() for name in names):
            raise LocationError(f"The filename template {self.text!r} has a field without a name; write '{{epoch}}'.")
        if not names:
            validate_key(self.format())

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields, in their order."""
        return tuple(name for _, name, _, _ in string.Formatter().parse(self.text) if name is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the values used in the fields: for `{epoch.real}` the name `epoch`."""
        return tuple(re.split(r"[.\[]", field)[0] for field in self.fields)

    def sample(self, *, urgent: bool = False) -> str:
        """Return an example of a name, for the first epoch and batch, with `nan` for each metric.

        Args:
            urgent: Whether each field must accept `nan`. If False, 0 and then an empty text are tried after `nan`.

        Raises:
            LocationError: A field cannot be formatted.
        """
        metrics = [name for name in self.names if name not in ("epoch", "batch")]
        problem: TemplateError | None = None
        for value in (math.nan,) if urgent else (math.nan, 0, ""):
            try:
                return self.format(batch=0, logs=dict.fromkeys(metrics, value))
            except TemplateError as exc:
                problem = problem or exc
        hint = (
            " Before the machine goes, a model is saved without waiting for its metrics, which are `nan` in its name "
            "then: write {step} or {step:06.0f} instead of {step:06d}."
        )
        raise LocationError(f"{problem}{hint if urgent else ''}") from problem

    @property
    def suffix(self) -> str:
        """`".weights.h5"`, `".keras"` or `".h5"`."""
        return next(suffix for suffix in SUFFIXES if self.text.endswith(suffix))

    @property
    def weights_only(self) -> bool:
        """Whether the suffix is `".weights.h5"`: the object holds weights only."""
        return self.suffix == ".weights.h5"

    def format(self, *, epoch: int = 0, batch: int | None = None, logs: Mapping[str, Any] | None = None) -> str:
        """Return the key for an epoch and batch (0-based) and logs, as Keras would name the file.

        Raises:
            TemplateError: A field is not among the logs, or does not fit its format.
            LocationError: The result is not a usable key.
        """
        values: dict[str, Any] = dict(logs or {})
        values["epoch"] = epoch + 1
        if batch is not None:
            values.setdefault("batch", batch + 1)
        try:
            key = self.text.format(**values)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as exc:
            known = ", ".join(sorted(values))
            raise TemplateError(
                f'Failed to format this callback filepath: "{self.text}". Reason: {exc}. Known fields: {known}.'
            ) from exc
        return validate_key(key)

    def may_have_made(self, key: str) -> bool:
        """Return whether a checkpoint of this template can have the key, with or without a short addition.

        The addition is what publishing appends to a key that is taken. A field without a format, or
        with a numeric format, matches only a number; any other field matches every text without a slash.
        """
        stem = "".join(
            re.escape(text) + ("" if name is None else _NUMBER if _PLAIN_FORMAT.fullmatch(spec or "") else "[^/]+")
            for text, name, spec, _ in string.Formatter().parse(self.text.removesuffix(self.suffix))
        )
        return re.fullmatch(stem + _EXTRA + re.escape(self.suffix), key) is not None

    @staticmethod
    def with_suffix_before_extension(key: str, extra: str) -> str:
        """Return `key` with `-extra` before its extension: the name to use if `key` is taken.

        Raises:
            LocationError: The result is too long for a key.
        """
        suffix = next(suffix for suffix in SUFFIXES if key.endswith(suffix))
        return validate_key(f"{key.removesuffix(suffix)}-{extra}{suffix}")


def _unbounded(text: str) -> str | None:
    """Return why a template must not be formatted, or None. A template may come from an untrusted manifest.

    Only plain names are allowed, because `str.format` would evaluate `{epoch.__class__}`. The width is limited, because
    `{epoch:0200000000d}` takes 200 MB.
    """
    for _, name, form, _ in string.Formatter().parse(text):
        if name is not None and re.search(r"[.\[\]{}]", name):
            return f"the field {name[:40]!r} is no plain name"
        if form and ("{" in form or len(form) > 40 or any(int(digits) > 300 for digits in re.findall(r"\d+", form))):
            return f"the format {form[:40]!r} is too long, or asks for too much"
    return "it is too long" if len(text) > _MAX_TEMPLATE else None


def validate_key(key: str) -> str:
    """Return `key` after checking for a valid name of an object in a run; the manifest is not trusted.

    Raises:
        LocationError: The key is absolute, climbs out of the run, is the manifest, or cannot be a file name.
    """
    parts = key.split("/")
    bad = (
        not key
        or key == MANIFEST_KEY
        or any(part in ("", ".", "..") for part in parts)
        or "\\" in key
        or not key.endswith(SUFFIXES)
        or any(ord(char) < 32 or 127 <= ord(char) < 160 or 0xD800 <= ord(char) <= 0xDFFF for char in key)
        or re.match(r"^[A-Za-z]:", key) is not None
    )
    if len(key.encode(errors="replace")) > _MAX_KEY_BYTES:
        raise LocationError(f"{key[:200]!r}… cannot name a checkpoint: it takes more than {_MAX_KEY_BYTES} bytes.")
    if bad:
        raise LocationError(
            f"{key[:200]!r} cannot name a checkpoint: it must be a relative path inside the run, ending in "
            "'.weights.h5', '.keras' or '.h5'."
        )
    return key
