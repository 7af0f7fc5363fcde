"""A download that outlives its process: the file so far, and notes of which bytes have landed."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from pathlib import Path

from remote_ckpt.cache.following import FollowingDigest
from remote_ckpt.stores.base import Progress, Version
from remote_ckpt.stores.spans import Span, Spans

_LINE = re.compile(r"^(\d{1,15}) (\d{1,15})$", re.MULTILINE)
_FLAGS = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Partial:
    """A `Landing` whose file and notes stay when the process dies. The caller holds a lock on the path.

    The notes are lines appended after the bytes they tell of; nothing is synced. A killed process loses neither, for
    both are with the kernel. After a power cut the notes may tell of bytes that never reached the disk: whoever uses
    the file compares its digest in any case.

    Attributes:
        path: The file; a store writes it.
        resumed: How many of its bytes came from an earlier process or call.
    """

    def __init__(self, path: Path, size: int, on_resume: Progress | None = None) -> None:
        """Take up what is at `path`, if it is a plain file of `size` bytes with notes; else remove it.

        Args:
            path: Where the file is, or will be; the notes are beside it.
            size: Bytes of the whole file.
            on_resume: Told of bytes that were there, once.
        """
        self.path = path
        self.size = size
        self.resumed = 0
        self._on_resume = on_resume
        self._notes_path = notes_of(path)
        self._lock = threading.Lock()
        self._notes: int | None = None
        self._version: Version | None = None
        self._closed = False
        self._spans = Spans()
        self._digest = FollowingDigest(path)
        if not (_is_plain(path) and path.stat().st_size == size and self._read_notes()):
            self.discard()

    def missing(self, version: Version) -> list[Span]:
        """Return which ranges are yet to come of that version; of another one everything is forgotten."""
        with self._lock:
            first = self._notes is None
            if version != self._version:
                self._forget()
                self._version = version
                self._note(json.dumps({"version": version, "size": self.size}))
            elif first:
                self.resumed = self._spans.total
                self._digest.follow(self._spans.prefix)
            if first and self.resumed and self._on_resume is not None:
                self._on_resume(self.resumed)
            return self._spans.gaps(self.size)

    def landed(self, start: int, end: int) -> None:
        """Note that a range has been written. A straggler of an interrupted transfer is not listened to."""
        with self._lock:
            if self._closed:
                return
            self._note(f"{start} {end}")
            self._spans.add(start, end)
            self._digest.follow(self._spans.prefix)

    def sha256(self) -> str:
        """Return the digest of the file, which is complete; most of it has been computed already.

        Raises:
            OSError: It cannot be read.
        """
        return self._digest.hexdigest(self.size)

    def discard(self) -> None:
        """Remove the file and its notes, and begin anew."""
        with self._lock:
            self._forget()

    def keep_as(self, path: Path) -> None:
        """Give the finished file its name, and remove the notes."""
        self.path.chmod(0o600)
        self.path.replace(path)
        self._notes_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the files; what has landed stays for the next."""
        with self._lock:
            self._closed = True
            self._release()

    def _release(self) -> None:
        self._digest.close()
        if self._notes is not None:
            os.close(self._notes)
            self._notes = None

    def _forget(self) -> None:
        self._release()
        self._notes_path.unlink(missing_ok=True)  # first: a file without notes is worth nothing, the reverse is a lie
        self.path.unlink(missing_ok=True)
        self._spans, self._version, self.resumed = Spans(), None, 0
        self._digest = FollowingDigest(self.path)

    def _note(self, line: str) -> None:
        if self._notes is None:
            self._notes = os.open(self._notes_path, _FLAGS, 0o600)
            os.write(self._notes, b"\n")  # the last line of what was there may be torn
        os.write(self._notes, f"{line}\n".encode())

    def _read_notes(self) -> bool:
        """Take over what the notes tell, except for lines that are torn or strange; return whether there are any."""
        if not _is_plain(self._notes_path):
            return False
        try:
            text = self._notes_path.read_text("ascii", "replace")
            told = json.loads(text.split("\n", 2)[1])
            if told["size"] != self.size:
                return False
            self._version = Version(str(told["version"]))
        except (OSError, ValueError, LookupError, TypeError):
            return False
        for start, end in _LINE.findall(text):
            self._spans.add(int(start), min(int(end), self.size))
        return True


def notes_of(path: Path) -> Path:
    """Return where the notes of a partial file are."""
    return path.with_name(f"{path.name}.notes")


def _is_plain(path: Path) -> bool:
    """Return whether a file of our own is there: no link, no device, nothing that has a second name."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.getuid()
