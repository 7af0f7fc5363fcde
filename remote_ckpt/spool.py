"""Sealed checkpoints on the local disk, their journals, and whose they are.

::

    <spool>/<run>/                     one folder for each run, named by a digest of its URL
        run.json                       which run that is, for people
        <owner>/                       one folder for each process that writes
            lock                       held while the owner lives; the kernel drops it when the owner dies, see `alive`
            left                       in place of signs of life: the owner has ended in good order
            <id>.weights.h5.partial    being written
            <id>.weights.h5            complete and on the disk
            <id>.json                  the seal: the record, how to commit it, and on which server. Without it the file
                                       counts for nothing
            <id>.upload.json           how far the upload has come
            spare.weights.h5           one that is in the bucket; the next is written over it, while the owner lives

Folders are 0700, so all that is in them is the user's alone. The checkpoints themselves have the user's own mode, as a
local run gets them by a link. No secrets are stored here.
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
from pydantic import BaseModel, ConfigDict, ValidationError

from remote_ckpt.alive import NAMES, SILENCE, Owned, host_of, is_being_made, is_local
from remote_ckpt.checkpoint import Checkpoint
from remote_ckpt.digests import digest_file
from remote_ckpt.errors import RemoteCkptError, SpoolError, SpoolFullError
from remote_ckpt.location import HIDDEN, SUFFIXES, Location
from remote_ckpt.policy import Mode
from remote_ckpt.private import is_ours, make_folder
from remote_ckpt.stores.base import Digests, Progress

log = logging.getLogger("remote_ckpt")

DEFAULT_LIMIT = 10 << 30
"""Bytes; never more than half of what the disk has free."""

_SPARE_SUFFIX = ".weights.h5"
_SPARE = f"spare{_SPARE_SUFFIX}"
"""To write over pages that the kernel has takes half the time of having it find new ones (299 MB: 31 ms, 60 ms)."""

_AGAIN = 100  # folders that vanish while they are made do so by chance
_FULL = (28, 122)  # ENOSPC, EDQUOT: the same numbers on every Linux; names are missing on some systems


class Terms(BaseModel):
    """How a series is kept: what a commit needs beside the record. Travels with each sealed checkpoint.

    Attributes:
        monitor: The metric that decides.
        mode: Its direction.
        alias: For a template without fields: whether its fixed name shows the best or the latest.
        keep_best: Retention, see `policy.retained`.
        keep_last: Retention, see `policy.retained`.
    """

    model_config = ConfigDict(frozen=True)

    monitor: str
    mode: Mode
    alias: str | None = None
    keep_best: int | None = None
    keep_last: int | None = None


class _Seal(BaseModel):
    record: Checkpoint
    terms: Terms
    blocks: tuple[str, ...] = ()
    server: str | None = None


@dataclass(frozen=True)
class Entry:
    """A sealed checkpoint that is not yet known to be in the bucket.

    Attributes:
        record: What will be committed.
        terms: How.
        path: The file, complete and on the disk.
        blocks: Digests of its blocks, see `stores.Digests`.
        recovered: Whether another process sealed it.
        reusable: Whether its file may be written over once it is in the bucket.
        server: The server that it is for, see `ObjectStore.server`; None where none was noted: by earlier versions,
            and where the settings named none that can be used.
    """

    record: Checkpoint
    terms: Terms
    path: Path
    blocks: tuple[str, ...] = ()
    recovered: bool = False
    reusable: bool = False
    server: str | None = None

    @property
    def digests(self) -> Digests:
        """The checksums, as the store wants them."""
        return Digests(self.record.size, self.record.sha256, self.record.crc32c, self.blocks)

    @property
    def journal(self) -> FileJournal:
        """Where the upload notes its progress."""
        return FileJournal(self.path.parent / f"{self.record.id}.upload.json")

    def drop(self) -> None:
        """Forget the checkpoint: the seal goes first, so that a crash in between leaves nothing half alive.

        Its file is kept to be written over, if it may be.
        """
        folder = self.path.parent
        for path in (folder / f"{self.record.id}.json", folder / f"{self.record.id}.upload.json"):
            path.unlink(missing_ok=True)
        spare = folder / _SPARE
        with contextlib.suppress(FileNotFoundError):
            if self.reusable and self.path.stat().st_nlink == 1:
                self.path.rename(spare)
            else:
                self.path.unlink()


@dataclass(frozen=True)
class FileJournal:
    """An upload's notes in a file; each save is atomic."""

    path: Path

    def load(self) -> dict[str, Any]:
        """Return what was saved last; empty at first, and when the notes are unreadable (the upload starts anew)."""
        try:
            state = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def save(self, state: dict[str, Any]) -> None:
        """Replace the notes, durably. A full or failing disk costs the notes alone: the upload goes on without."""
        try:
            _write_durably(self.path, json.dumps(state).encode())
        except OSError as exc:
            log.warning("%s: %s. If this upload breaks off, it cannot be resumed and begins anew.", self.path, exc)


class Spool:
    """The part of the local disk where one process keeps one run's checkpoints until they are in the bucket.

    Threads: `scratch` belongs to the training thread, `seal` to the sealer, `Entry.drop` to the publisher.
    """

    def __init__(
        self,
        location: Location,
        folder: str | os.PathLike[str] | None = None,
        limit: int | None = None,
        *,
        server: Callable[[], str] | None = None,
    ):
        """Name the folders; nothing is created before it is needed.

        Args:
            location: The run.
            folder: Where spools live; by default `REMOTE_CKPT_SPOOL`, else inside a local run itself (so that an
                upload is a link), else the user's cache folder.
            limit: Bytes that this run's spool may hold; at most half of what the disk has free.
            server: Returns the server that the run is on, see `ObjectStore.server`; asked when it is first needed.
                One URL may be of several servers: what was sealed for another one is never taken for this run's.
        """
        self.location = location
        self.limit = DEFAULT_LIMIT if limit is None else limit
        self.folder = _default_folder(location) if folder is None else Path(folder).expanduser().absolute()
        self.folder /= hashlib.sha256(location.root.encode()).hexdigest()[:16]
        self._ask_server = server
        self._elsewhere: frozenset[Path] = frozenset()
        self._own: Owned | None = None
        self._adopted: list[Owned] = []
        self._claiming = threading.Lock()

    def used(self) -> int:
        """Return the bytes that this run's spool holds, whoever wrote them; not the spares, which get used up."""
        return self._held()[0]

    def room(self) -> int:
        """Return how many more bytes may be written now."""
        used, spare = self._held()
        try:
            free = shutil.disk_usage(_existing(self.folder)).free + spare
        except OSError:
            free = 0
        return min(self.limit - used, (free + used) // 2 - used)

    def _held(self) -> tuple[int, int]:
        """Return the bytes of what waits or is being written, and of the spares, in which the next will be written.

        What waits for another server must not crowd out what is for this one.
        """
        used = spare = 0
        for path in self.folder.glob("*/**/*"):  # files from `scratch` lie a folder deeper
            if path.name in NAMES or not self._elsewhere.isdisjoint(path.parents):
                continue
            with contextlib.suppress(OSError):
                found = path.lstat()
                size = found.st_size if stat.S_ISREG(found.st_mode) else 0
                used, spare = (used, spare + size) if path.name == _SPARE else (used + size, spare)
        return used, spare

    def seal(
        self,
        checkpoint_id: str,
        suffix: str,
        write: Callable[[Path], None],
        complete: Callable[[Digests], tuple[Checkpoint, Terms]],
        *,
        blocks: bool = False,
    ) -> Entry:
        """Write a checkpoint, put it safely on the disk, and seal it.

        Args:
            checkpoint_id: Names the files.
            suffix: `".weights.h5"`, `".keras"` or `".h5"`; Keras looks at it.
            write: Called with the path to write to, which ends with `suffix`; a file of any content may be there.
            complete: Called with the file's digests; returns the record and how to commit it.
            blocks: Whether to digest each block too.

        Raises:
            SpoolFullError: The disk is full. What was written is removed.
            SpoolError: The folder cannot be written to.
        """
        with _translated(self.folder):
            folder = self._claim().folder
            # Keras insists on the suffix, so "partial" goes in front of the name's last part.
            partial, path = folder / f"{checkpoint_id}.partial{suffix}", folder / f"{checkpoint_id}{suffix}"
            try:
                if suffix == _SPARE_SUFFIX:
                    with contextlib.suppress(FileNotFoundError):
                        (folder / _SPARE).rename(partial)
                        _sync(folder)  # or a power cut could bring back its old seal over the new bytes
                write(partial)
                _sync(partial)
                digests = digest_file(partial, blocks=blocks)
                partial.rename(path)
                record, terms = complete(digests)
                server = self._server_if_known()
                seal = _Seal(record=record, terms=terms, blocks=digests.blocks, server=server)
                _write_durably(folder / f"{checkpoint_id}.json", seal.model_dump_json().encode())
            except BaseException:
                partial.unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                raise
        # A local run's objects are links to these files: somebody may be reading one even when its name is gone.
        reusable = suffix == _SPARE_SUFFIX and self.location.protocol != "file"
        return Entry(record, terms, path, digests.blocks, reusable=reusable, server=server)

    def scratch(self) -> Path:
        """Return a folder on the spool's filesystem for files that will be sealed; removed with the owner's.

        Raises:
            SpoolError: The folder cannot be created.
        """
        with _translated(self.folder):
            return self._claim().folder

    def adopt(self, *, unnoted: bool = False) -> list[Entry]:
        """Return what dead processes left here, oldest first, and own it from now on.

        A process that lives keeps what it has: its lock cannot be taken. So does one on another host, whose lock may
        not reach this one, until it has shown no life for half an hour; that is logged. Files that were never sealed
        are removed. What is for another server stays where it is, see `elsewhere`.

        Args:
            unnoted: Whether to take what has no server noted, too: the user answers for its being of this one.

        Raises:
            StoreError: Something waits, and the run's server cannot be found out.
        """
        for folder in self._owners(unseen=True):  # their owners died while making them
            if not is_being_made(folder) and (unborn := Owned.take(folder)) is not None:
                unborn.leave(empty=True)
        entries: list[Entry] = []
        self._look_elsewhere()
        for folder in self._owners():
            alien = folder in self._elsewhere or (self._own and folder == self._own.folder)
            owned = None if alien else Owned.take(folder)
            if owned is None:
                self._tell_of(folder)
                continue
            found = [entry for entry in _sealed_in(owned.folder) if self._is_for_here(entry, unnoted=unnoted)]
            if found:
                self._adopted.append(owned)
                entries += found
            else:
                owned.leave(empty=True)
        return sorted(entries, key=lambda entry: entry.record.created)

    def _tell_of(self, folder: Path) -> None:
        """Log what is left alone because its owner is on another host, and may be alive."""
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
        """Show other hosts that this process is alive. Threads: any; call it every minute or so."""
        for owned in (*self._adopted, *((self._own,) if self._own else ())):
            owned.beat()

    def beating(self, progress: Progress | None) -> Progress:
        """Return `progress`, to be told of an upload that this thread waits for; each part is a sign of life."""

        def told(moved: int) -> None:
            self.beat()
            if progress is not None:
                progress(moved)

        return told

    def waiting(self) -> list[Entry]:
        """Return every sealed checkpoint of this run on this machine, without owning any; for looking only.

        Raises:
            StoreError: Something waits, and the run's server cannot be found out.
        """
        return sorted(filter(self._is_for_here, self._sealed()), key=lambda entry: entry.record.created)

    def elsewhere(self) -> list[Entry]:
        """Return what waits here under this run's URL and is not taken up by itself: for another server, or unnoted.

        Raises:
            StoreError: Something waits, and the run's server cannot be found out.
        """
        return [entry for entry in self._sealed() if not self._is_for_here(entry, unnoted=False)]

    @property
    def server(self) -> str | None:
        """The server that the run is on; None where nobody was named to ask.

        Raises:
            StoreError: It cannot be found out with these settings.
        """
        return self._ask_server() if self._ask_server else None

    def _server_if_known(self) -> str | None:
        """Return the server for a seal; what cannot be noted must not keep a checkpoint from the disk."""
        with contextlib.suppress(RemoteCkptError):
            return self.server
        return None

    def _is_for_here(self, entry: Entry, *, unnoted: bool = True) -> bool:
        """Return whether a sealed checkpoint is for the server that this run is on.

        Where there can be only one server, what has none noted is for it.
        """
        here = self.server
        return here == entry.server or (entry.server is None and (unnoted or here == ""))

    def _look_elsewhere(self) -> None:
        """Note which owners' folders hold nothing for this run's server."""
        noted = {folder: list(_sealed_in(folder, tidy=False)) for folder in self._owners()}
        self._elsewhere = frozenset(
            folder for folder, found in noted.items() if found and not any(map(self._is_for_here, found))
        )

    def _sealed(self) -> list[Entry]:
        return [entry for folder in self._owners() for entry in _sealed_in(folder, tidy=False)]

    def close(self) -> None:
        """Let go of the locks, and remove folders that have become empty. Sealed checkpoints stay."""
        for owned in (*self._adopted, *((self._own,) if self._own else ())):
            owned.leave(empty=not any(_sealed_in(owned.folder)))
        self._own, self._adopted = None, []
        with contextlib.suppress(OSError):  # the last one out
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
        """Return what this user's processes made here; in a local run that others write to, theirs may be here too."""
        try:
            found = [path for path in self.folder.glob("*") if path.name.startswith(".") is unseen]
        except FileNotFoundError:  # the last one out has just removed it
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
            with contextlib.suppress(FileNotFoundError):  # the last one out has just removed it
                self._make_folder()
                return Owned.create(self.folder)
        self._make_folder()
        return Owned.create(self.folder)


def _sealed_in(folder: Path, *, tidy: bool = True) -> Iterator[Entry]:
    """Yield what is sealed in a folder; with `tidy` remove what is not, which only the folder's owner may do."""
    sealed: set[str] = {*NAMES}
    for path in sorted(folder.glob("*.json")):
        if path.name.endswith(".upload.json"):
            continue
        try:
            seal = _Seal.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            continue
        suffix = next(suffix for suffix in SUFFIXES if seal.record.key.endswith(suffix))
        file = folder / f"{seal.record.id}{suffix}"
        if path.stem == seal.record.id and _has_size(file, seal.record.size):
            sealed |= {path.name, f"{path.stem}.upload.json", file.name}
            yield Entry(seal.record, seal.terms, file, seal.blocks, recovered=True, server=seal.server)
    if tidy:
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name not in sealed:
                path.unlink(missing_ok=True)


def _has_size(path: Path, size: int) -> bool:
    """Return whether a file, no link, is there with all its bytes; its owner may drop it at any instant."""
    try:
        found = path.lstat()
    except OSError:
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
    """Return the nearest folder that exists."""
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_durably(path: Path, data: bytes, *, beside: Path | None = None) -> None:
    """Replace a small file: temporary name (in the folder `beside`, or its own), fsync, rename, fsync of the folder."""
    temporary = (beside or path.parent) / f"{path.name}.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - from a descriptor, for the mode
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Turn an OSError into ours, with what the user can do."""
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
    """Return the OSError behind an error: h5py raises RuntimeError when closing the file fails as well."""
    while exc is not None and not isinstance(exc, OSError):
        exc = exc.__cause__ or exc.__context__
    return exc
