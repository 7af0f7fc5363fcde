"""Sealed checkpoints on the local disk, their journals and their owners.

::

    <spool>/<run>/                     one folder for each run, named by a digest of its URL
        run.json                       the run's URL and protocol, for people
        <owner>/                       one folder for each process that writes
            lock                       held while the owner lives, and dropped by the kernel: see `spool_owners`
            left                       a mark that the owner has released the folder: no signs of life will come
            <id>.partial.weights.h5    being written
            <id>.weights.h5            complete and on the disk
            <id>.json                  the seal: the record, how to commit it, and on which server. A file without a
                                       seal counts for nothing
            <id>.upload.json           the journal: how far the upload has come
            spare.weights.h5           a file no longer needed; the next checkpoint is written over it

The folders of the run and of each owner have mode 0700, so only the user can read what is in them. The checkpoint
files themselves have the mode of the user's umask, because a local run gets them by a link. No secrets are stored here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ValidationError

from remote_ckpt.digests import digest_file
from remote_ckpt.errors import RemoteCkptError, SpoolError, SpoolFullError
from remote_ckpt.local_files import is_ours, make_folder
from remote_ckpt.location import HIDDEN, SUFFIXES, Location
from remote_ckpt.records import Checkpoint
from remote_ckpt.records.series_rules import SeriesRules
from remote_ckpt.saving.spool_owners import NAMES, SILENCE, Owned, host_of, is_being_made, is_local
from remote_ckpt.stores.base import Digests, Progress

log = logging.getLogger("remote_ckpt")

DEFAULT_LIMIT = 10 << 30
"""Bytes that a run's spool may hold; see `Spool.room` for the second bound."""

_SPARE_SUFFIX = ".weights.h5"
_SPARE = f"spare{_SPARE_SUFFIX}"
"""A file to write over: the kernel has its pages, and new ones take twice the time (299 MB: 31 ms, 60 ms)."""

_AGAIN = 100  # attempts; another process's `close` may remove the run's folder between two steps of ours
_FULL = (28, 122)  # ENOSPC, EDQUOT: the same numbers on every Linux; names are missing on some systems


class _Seal(BaseModel):
    record: Checkpoint
    terms: SeriesRules
    blocks: tuple[str, ...] = ()
    server: str | None = None


@dataclass(frozen=True)
class SpoolEntry:
    """A sealed checkpoint, not yet known to be in the bucket.

    Attributes:
        record: The record to commit.
        terms: How its series is judged and kept.
        path: The file, complete and on the disk.
        blocks: Digests of its blocks, see `stores.Digests`.
        recovered: Whether another process sealed it.
        reusable: Whether its file may be written over once it is in the bucket.
        server: The server for which it was sealed, see `ObjectStore.server`. None in seals of earlier versions, and if
            the settings named no usable server.
    """

    record: Checkpoint
    terms: SeriesRules
    path: Path
    blocks: tuple[str, ...] = ()
    recovered: bool = False
    reusable: bool = False
    server: str | None = None

    @property
    def digests(self) -> Digests:
        """The file's size and checksums, in the form for the store."""
        return Digests(self.record.size, self.record.sha256, self.record.crc32c, self.blocks)

    @property
    def journal(self) -> FileJournal:
        """The journal of the upload, a file beside the checkpoint."""
        return FileJournal(self.path.parent / f"{self.record.id}.upload.json")

    def drop(self) -> None:
        """Delete the seal, the journal and the file; or keep the file as the spare, if `reusable`.

        The seal is deleted first: after a crash in between, the rest counts for nothing.

        Raises:
            OSError: The disk refused; the checkpoint may still be sealed.
        """
        folder = self.path.parent
        for path in (folder / f"{self.record.id}.json", folder / f"{self.record.id}.upload.json"):
            path.unlink(missing_ok=True)
        spare = folder / _SPARE
        with contextlib.suppress(FileNotFoundError):  # the user removed the file: nothing is left to delete
            if self.reusable and self.path.stat().st_nlink == 1:  # a second link would see its bytes change
                self.path.rename(spare)
            else:
                self.path.unlink()


@dataclass(frozen=True)
class FileJournal:
    """An upload's journal in a file; each save is atomic."""

    path: Path

    def load(self) -> dict[str, Any]:
        """Return the state last saved; empty at first, and if the file is unreadable (the upload starts anew)."""
        try:
            state = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def save(self, state: dict[str, Any]) -> None:
        """Replace the journal, durably. If the disk refuses, a warning is logged and the upload goes on."""
        try:
            _write_durably(self.path, json.dumps(state).encode())
        except OSError as exc:
            log.warning("%s: %s. If this upload breaks off, it cannot be resumed and begins anew.", self.path, exc)


class Spool:
    """The local folder where a process keeps a run's checkpoints until they are in the bucket.

    Threads: `scratch` is for the training thread, `seal` for the sealer, `SpoolEntry.drop` for the publisher, `beat`
    for any.
    """

    def __init__(
        self,
        location: Location,
        folder: str | os.PathLike[str] | None = None,
        limit: int | None = None,
        *,
        server: Callable[[], str] | None = None,
    ):
        """Choose the folders; nothing is created yet.

        Args:
            location: The run.
            folder: Where spools live; by default `REMOTE_CKPT_SPOOL`, else inside a local run itself (so that an
                upload is a link), else the user's cache folder.
            limit: Bytes that this run's spool may hold; `room` has a second bound.
            server: Returns the run's server, see `ObjectStore.server`; called each time the server is needed. One URL
                may exist on several servers: a checkpoint sealed for another server is never uploaded to this one.
        """
        self.location = location
        self.limit = DEFAULT_LIMIT if limit is None else limit
        self.folder = _default_folder(location) if folder is None else Path(folder).expanduser().absolute()
        self.folder /= hashlib.sha256(location.root.encode()).hexdigest()[:16]
        self._ask_server = server
        self._elsewhere: frozenset[Path] = frozenset()
        self._own: Owned | None = None
        self._adopted: list[Owned] = []
        self._claiming = threading.Lock()  # `scratch` and `seal` may both be the first to need the folder

    def used(self) -> int:
        """Return the bytes in this run's spool, from all processes.

        Not counted: spares, which are written over next, and the folders for other servers, which `adopt` has found.
        """
        return self._held()[0]

    def room(self) -> int:
        """Return how many more bytes may be written now; negative if the limit is exceeded.

        The spool may hold `limit` bytes, and at most half of the disk space that is free or held by the spool.
        """
        used, spare = self._held()
        try:
            free = shutil.disk_usage(_existing(self.folder)).free + spare
        except OSError:  # a disk that does not answer has no room
            free = 0
        return min(self.limit - used, (free + used) // 2 - used)

    def _held(self) -> tuple[int, int]:
        """Return two sums of bytes: of waiting and unfinished files, and of spares, to be written over next.

        Checkpoints for another server are not counted: they must not take the room of this run's checkpoints.
        """
        used = spare = 0
        for path in self.folder.glob("*/**/*"):  # files from `scratch` lie a folder deeper
            if path.name in NAMES or not self._elsewhere.isdisjoint(path.parents):
                continue
            with contextlib.suppress(OSError):  # its owner may delete the file at any moment
                found = path.lstat()
                size = found.st_size if stat.S_ISREG(found.st_mode) else 0
                used, spare = (used, spare + size) if path.name == _SPARE else (used + size, spare)
        return used, spare

    def seal(
        self,
        checkpoint_id: str,
        suffix: str,
        write: Callable[[Path], None],
        complete: Callable[[Digests], tuple[Checkpoint, SeriesRules]],
        *,
        blocks: bool = False,
    ) -> SpoolEntry:
        """Write a checkpoint, fsync the file, and write the seal. After an error the file is deleted.

        Args:
            checkpoint_id: The stem of the file names.
            suffix: `".weights.h5"`, `".keras"` or `".h5"`; Keras checks the suffix.
            write: Called with the path to write to, which ends with `suffix`; a file of any content may be there.
            complete: Called with the file's digests; returns the record and the terms.
            blocks: Whether to compute the digests of all blocks too.

        Raises:
            SpoolFullError: The disk is full.
            SpoolError: The folder cannot be written to.
            Exception: Any other error of `write` or `complete`, unchanged.
        """
        with _translated(self.folder):
            folder = self._claim().folder
            # Keras insists on the suffix, so "partial" goes in front of the name's last part.
            partial, path = folder / f"{checkpoint_id}.partial{suffix}", folder / f"{checkpoint_id}{suffix}"
            try:
                if suffix == _SPARE_SUFFIX:
                    with contextlib.suppress(FileNotFoundError):  # no spare yet
                        (folder / _SPARE).rename(partial)
                        _sync(folder)  # else a power cut may bring back the spare's old seal, beside new bytes
                write(partial)
                _sync(partial)  # before the seal: after a power cut, a sealed file must be complete
                digests = digest_file(partial, blocks=blocks)
                partial.rename(path)  # durable with the seal, whose write ends with an fsync of the folder
                record, terms = complete(digests)
                server = self._server_if_known()
                seal = _Seal(record=record, terms=terms, blocks=digests.blocks, server=server)
                _write_durably(folder / f"{checkpoint_id}.json", seal.model_dump_json().encode())
            except BaseException:  # `write` runs a user's layers, which may raise anything
                partial.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise
        # A local run's objects are links to these files: another process may read one after its name was deleted.
        reusable = suffix == _SPARE_SUFFIX and self.location.protocol != "file"
        return SpoolEntry(record, terms, path, digests.blocks, reusable=reusable, server=server)

    def scratch(self) -> Path:
        """Return this process's folder in the spool, for temporary files on the filesystem of the sealed files.

        `close` deletes them; while something sealed is there, the process that takes the folder over does.

        Raises:
            SpoolError: The folder cannot be created.
        """
        with _translated(self.folder):
            return self._claim().folder

    def adopt(self, *, unnoted: bool = False) -> list[SpoolEntry]:
        """Take over the sealed checkpoints of dead processes; return them, oldest first.

        The checkpoints of a live process stay with that process: its lock cannot be taken. A lock may not reach from
        one host to another: there, a folder is left alone until its owner has left or has shown no sign of life for
        `alive.SILENCE` seconds (half an hour), and a warning is logged. Unsealed files of dead processes are deleted. A
        folder whose checkpoints are all for another server stays as it is, see `Spool.elsewhere`.

        Args:
            unnoted: Whether to take also checkpoints without a server in their seal: the user is sure that they are for
                this run's server.

        Raises:
            StoreError: Checkpoints wait, and the run's server cannot be found out.
        """
        for folder in self._owners(unseen=True):  # their owners died while making them
            if not is_being_made(folder) and (unborn := Owned.take(folder)) is not None:
                unborn.leave(empty=True)
        entries: list[SpoolEntry] = []
        self._look_elsewhere()
        for folder in self._owners():
            alien = folder in self._elsewhere or (self._own and folder == self._own.folder)
            owned = None if alien else Owned.take(folder)
            if owned is None:
                self._tell_of(folder)
                continue
            sealed = list(_sealed_in(owned.folder))
            found = [entry for entry in sealed if self._is_for_here(entry, unnoted=unnoted)]
            if found:
                self._adopted.append(owned)
                entries += found
            else:  # perhaps with checkpoints that are not for this server, or have none in their seal: these stay
                owned.leave(empty=not sealed)
        return sorted(entries, key=lambda entry: entry.record.created)

    def _tell_of(self, folder: Path) -> None:
        """Log how many checkpoints are left alone because their owner is on another host and may be alive."""
        count = 0 if is_local(folder) else len(list(_sealed_in(folder, tidy=False)))
        if count:
            log.warning(
                "%d checkpoint(s) in %s belong to a process on the host %s, which may be alive. Run recover there; or "
                "here, when that process has shown no life for %.0f minutes.",
                count,
                folder,
                host_of(folder),
                SILENCE / 60,
            )

    def beat(self) -> None:
        """Give a sign of life to other hosts. Threads: any. Call about every minute (`alive.BEAT` seconds)."""
        for owned in (*self._adopted, *((self._own,) if self._own else ())):
            owned.beat()

    def beating(self, progress: Progress | None) -> Progress:
        """Return a progress callback: give a sign of life at each call, then call `progress`.

        For an upload in the foreground, where no sealer thread gives signs of life.
        """

        def told(moved: int) -> None:
            self.beat()
            if progress is not None:
                progress(moved)

        return told

    def waiting(self) -> list[SpoolEntry]:
        """Return all sealed checkpoints of this run on this machine. Takes over none of them.

        Includes checkpoints of live processes, and checkpoints without a server in their seal.

        Raises:
            StoreError: Checkpoints wait, and the run's server cannot be found out.
        """
        return sorted(filter(self._is_for_here, self._sealed()), key=lambda entry: entry.record.created)

    def elsewhere(self) -> list[SpoolEntry]:
        """Return the sealed checkpoints of this URL for another server, or without a server in their seal.

        Raises:
            StoreError: Checkpoints wait, and the run's server cannot be found out.
        """
        return [entry for entry in self._sealed() if not self._is_for_here(entry, unnoted=False)]

    @property
    def server(self) -> str | None:
        """The run's server; None if the spool was made without the argument `server`.

        Raises:
            StoreError: The server cannot be found out with these settings.
        """
        return self._ask_server() if self._ask_server else None

    def _server_if_known(self) -> str | None:
        """Return the server for a seal; None if unknown, because the checkpoint must be sealed all the same."""
        with contextlib.suppress(RemoteCkptError):
            return self.server
        return None

    def _is_for_here(self, entry: SpoolEntry, *, unnoted: bool = True) -> bool:
        """Return whether a sealed checkpoint is for this run's server.

        A seal without a server counts as for this server with `unnoted`, or if only one server is possible.
        """
        here = self.server
        return here == entry.server or (entry.server is None and (unnoted or here == ""))

    def _look_elsewhere(self) -> None:
        """Find the owners' folders with sealed checkpoints for other servers only."""
        noted = {folder: list(_sealed_in(folder, tidy=False)) for folder in self._owners()}
        self._elsewhere = frozenset(
            folder for folder, found in noted.items() if found and not any(map(self._is_for_here, found))
        )

    def _sealed(self) -> list[SpoolEntry]:
        return [entry for folder in self._owners() for entry in _sealed_in(folder, tidy=False)]

    def close(self) -> None:
        """Remove folders without sealed checkpoints, and release the locks. Sealed checkpoints stay."""
        for owned in (*self._adopted, *((self._own,) if self._own else ())):
            owned.leave(empty=not any(_sealed_in(owned.folder)))
        self._own, self._adopted = None, []
        # The last process removes the run's folder. If another one creates its own meanwhile, rmdir fails: suppressed.
        with contextlib.suppress(OSError):
            if not self._owners():
                (self.folder / "run.json").unlink(missing_ok=True)
                self.folder.rmdir()

    def _make_folder(self) -> None:
        if self.folder.is_relative_to(self.location.root):  # a local run has the user's own mode
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        else:
            make_folder(self.folder)
        if not is_ours(self.folder):
            raise SpoolError(
                f"{self.folder} is a link, or belongs to somebody else, who could change what waits in it. "
                "Set spool_dir (or REMOTE_CKPT_SPOOL) to a folder of yours."
            )

    def _owners(self, *, unseen: bool = False) -> list[Path]:
        """Return the owners' folders of this user. In a local run, folders of other users may lie beside them."""
        try:
            found = [path for path in self.folder.glob("*") if path.name.startswith(".") is unseen]
        except FileNotFoundError:  # another process has just removed the run's folder, in `close`
            return []
        return sorted(path for path in found if _is_ours(path)) if _is_ours(self.folder) else []

    def _claim(self) -> Owned:
        with self._claiming:
            if self._own is None or not self._own.folder.is_dir():
                self._own = self._make_own()
                note = {"run": self.location.name, "protocol": self.location.protocol}
                _write_durably(self.folder / "run.json", json.dumps(note).encode(), beside=self._own.folder)
            return self._own

    def _make_own(self) -> Owned:
        for _ in range(_AGAIN):
            with contextlib.suppress(FileNotFoundError):  # another process has just removed the run's folder
                self._make_folder()
                return Owned.create(self.folder)
        self._make_folder()
        return Owned.create(self.folder)


def _sealed_in(folder: Path, *, tidy: bool = True) -> Iterator[SpoolEntry]:
    """Yield the sealed checkpoints of a folder; with `tidy`, delete all other files (for the folder's owner only)."""
    sealed: set[str] = {*NAMES}
    try:
        notes = sorted(folder.glob("*.json"))
    except FileNotFoundError:  # its owner has removed the whole folder since the caller saw it
        return
    for path in notes:
        if path.name.endswith(".upload.json"):
            continue
        try:
            seal = _Seal.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):  # dropped by its owner meanwhile, or no seal of ours
            continue
        suffix = next(suffix for suffix in SUFFIXES if seal.record.key.endswith(suffix))
        file = folder / f"{seal.record.id}{suffix}"
        if path.stem == seal.record.id and _has_size(file, seal.record.size):
            sealed |= {path.name, f"{path.stem}.upload.json", file.name}
            yield SpoolEntry(seal.record, seal.terms, file, seal.blocks, recovered=True, server=seal.server)
    if tidy:
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in sealed:
                path.unlink(missing_ok=True)


def _has_size(path: Path, size: int) -> bool:
    """Return whether a regular file of this size exists; symbolic links do not count."""
    try:
        found = path.lstat()
    except OSError:  # its owner may drop the file at any moment
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def _default_folder(location: Location) -> Path:
    if configured := os.environ.get("REMOTE_CKPT_SPOOL"):
        return Path(configured).expanduser().absolute()
    if location.protocol == "file":
        return Path(location.root) / HIDDEN / "spool"
    return Path(platformdirs.user_cache_dir("remote_ckpt")) / "spool"


def _is_ours(folder: Path) -> bool:
    try:
        return is_ours(folder)
    except OSError:
        return False


def _existing(path: Path) -> Path:
    """Return the nearest existing folder: the path itself or a parent."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)  # of a folder too, where fsync makes renames durable
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, data: bytes, *, beside: Path | None = None) -> None:
    """Replace a small file atomically and durably: write a temporary file, fsync, rename, fsync the folder.

    Args:
        path: The file.
        data: Its new content.
        beside: Where the temporary file lies; by default in the file's own folder. A crash leaves it there.
    """
    temporary = (beside or path.parent) / f"{path.name}.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - from a descriptor, for the mode
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)  # a reader sees the old content or the new
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Raise each OSError in the block as a `SpoolError`, with advice for the user."""
    try:
        yield
    except SpoolError:
        raise
    except Exception as exc:
        problem = _os_error(exc)
        if problem is None:
            raise
        if problem.errno in _FULL:
            raise SpoolFullError(
                f"The disk with {folder} is full. Free some space, or set spool_dir (or REMOTE_CKPT_SPOOL) "
                f"to a folder on another disk. ({type(problem).__name__}: errno {problem.errno})"
            ) from exc
        raise SpoolError(
            f"Cannot write to the spool {folder}: {problem}. Set spool_dir (or REMOTE_CKPT_SPOOL) to a folder of yours."
        ) from exc


def _os_error(exc: BaseException | None) -> OSError | None:
    """Return the OSError behind an error, if any: h5py raises RuntimeError when closing the file fails as well."""
    while exc is not None and not isinstance(exc, OSError):
        exc = exc.__cause__ or exc.__context__
    return exc
