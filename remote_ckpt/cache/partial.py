"""A resumable download: a partial file, and notes of the byte ranges already written."""

from __future__ import annotations

import json
import os
import re
import stat
import threading
from pathlib import Path

from remote_ckpt.cache.following import FollowingDigest
from remote_ckpt.stores.base import Progress, Version
from remote_ckpt.stores.byte_ranges import Span, Spans

_LINE = re.compile(r"^(\d{1,15}) (\d{1,15})$", re.MULTILINE)
_FLAGS = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Partial:
    """A `Landing` with a file and notes on disk; both survive a kill.

    The caller makes sure that no other process or thread uses the same path: by the object's lock, or by a random name.
    A line is appended to the notes after its bytes were written; nothing is synced. A killed process loses neither,
    because the kernel already has both. After a power cut the notes may list bytes that never reached the disk; so the
    digest of the completed file is always compared.

    `landed` may be called from several threads.

    Attributes:
        path: The file; a store writes it.
        resumed: How many bytes of the file came from an earlier process or call.
    """

    def __init__(self, path: Path, size: int, on_resume: Progress | None = None) -> None:
        """Resume the download at `path`, if there is a plain file of `size` bytes with notes; else remove both.

        Args:
            path: Where the file is, or will be; the notes are beside it.
            size: Bytes of the whole file.
            on_resume: Called at most once, with the number of bytes that were there already.
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
        """Return the byte ranges of `version` that the file lacks.

        If the file holds bytes of another version, the file is deleted, and all ranges are missing.
        """
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
        """Record that bytes [start, end) have been written. After `close` do nothing."""
        with self._lock:
            if self._closed:  # a thread of an interrupted transfer may end late: its path may have a new owner by now
                return
            self._note(f"{start} {end}")  # after the bytes were written: a kill in between only costs a repetition
            self._spans.add(start, end)
            self._digest.follow(self._spans.prefix)

    def sha256(self) -> str:
        """Return the digest of the complete file; most of the work was done during the download.

        Raises:
            OSError: The file cannot be read.
        """
        return self._digest.hexdigest(self.size)

    def discard(self) -> None:
        """Remove the file and its notes; the download starts again from the first byte."""
        with self._lock:
            self._forget()

    def keep_as(self, path: Path) -> None:
        """Rename the complete file to `path`, and remove the notes."""
        self.path.chmod(0o600)
        # Atomic: other processes see no file under `path`, or the whole verified one. Without fsync: each use compares
        # the digest again. A kill after the rename leaves notes without a file, which the next download discards.
        self.path.replace(path)
        self._notes_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files and end the thread. The bytes that have landed stay for the next download."""
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
        # Notes first, in case the process dies in between: a file without notes is discarded by the next download, but
        # old notes beside a new file would list bytes that the new file does not hold.
        self._notes_path.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        self._spans, self._version, self.resumed = Spans(), None, 0
        self._digest = FollowingDigest(self.path)

    def _note(self, line: str) -> None:
        if self._notes is None:
            self._notes = os.open(self._notes_path, _FLAGS, 0o600)
            os.write(self._notes, b"\n")  # the last line of an earlier process may be incomplete
        os.write(self._notes, f"{line}\n".encode())

    def _read_notes(self) -> bool:
        """Read version and ranges from the notes, without incomplete lines; return whether the notes are usable."""
        if not _is_plain(self._notes_path):
            return False
        try:
            text = self._notes_path.read_text("ascii", "replace")
            told = json.loads(text.split("\n", 2)[1])
            if told["size"] != self.size:
                return False
            self._version = Version(str(told["version"]))
        except (OSError, ValueError, LookupError, TypeError):  # a torn or foreign file: begin anew
            return False
        for start, end in _LINE.findall(text):
            self._spans.add(int(start), min(int(end), self.size))
        return True


def notes_of(path: Path) -> Path:
    """Return the path of the notes for a partial file."""
    return path.with_name(f"{path.name}.notes")


def _is_plain(path: Path) -> bool:
    """Return whether the path is a regular file of this user with one name: no link, no device."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_uid == os.getuid()
