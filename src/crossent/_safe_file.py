"""Files that are written: each appears when it is whole, and none is a file that is read."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import combinations
from pathlib import Path
from typing import Any, Self

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_KNOWN_HERE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EISDIR, errno.ENOTSUP)
STANDARD_STREAMS = {1: "standard output", 2: "standard error"}
TOKEN = 12  # hexadecimal digits that make a hidden name its writer's own


class BadFile(ValueError):
    """A file that cannot be read as what it was given for, or cannot be written."""


class BadOption(ValueError):
    """Options that do not fit one another or the data."""


# --- Before the work ------------------------------------------------------------------------------


def check_output(
    name: str, path: Path, such_as: str | Path, *, may_be_device: bool = False
) -> list[Path]:
    """What killed runs had left beside a file that is to be written; by now it is removed.

    Args:
        name: of the option, for messages.
        path: of the file.
        such_as: a name that could be given in place of a folder's.
        may_be_device: whether a pipe or a device will do.

    Raises:
        BadOption, BadFile: the file could not be written, as a nameless one in its place shows.
    """
    try:
        folder = Path(os.path.realpath(path)).parent if path.is_symlink() else path.parent
        is_device = path.exists() and not path.is_file() and not path.is_dir()
        not_ours = "may not be written; name a file in a folder of yours"
        for is_wrong, problem in (
            (path.is_dir(), f"is a folder; name a file, such as {path / such_as}"),
            (is_device and not may_be_device, "is not a regular file; name another"),
            (not folder.is_dir(), f"there is no folder {folder}; make it or name another"),
            (not os.access(path if path.exists() else folder, os.W_OK), not_ours),
            (not is_device and not os.access(folder, os.W_OK), not_ours),
        ):
            if is_wrong:
                raise BadOption(f"{name} {path}: {problem}")
    except OSError as error:  # such as a name that is too long
        raise BadOption(f"{name} {path}: {error.strerror}; name another file") from None
    if is_device:
        return []
    with SafeFile(path, 0) as file:
        return file.removed


def check_distinct(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path] = ()) -> None:
    """Raises BadOption where an output is an input, another output, or what is printed to.

    Args:
        outputs: by what they hold, as messages call it.
        inputs: the files that are read.
    """
    read = [Path(path) for path in inputs]
    written = {name: path for name, path in outputs.items() if path is not None}
    for path in written.values():
        if any(is_one_file(path, one) for one in read):
            raise BadOption(f"{path}: is one of the inputs; name another file")
        for handle, stream in STANDARD_STREAMS.items():
            if path.is_file() and is_one_file(path, Path(f"/dev/fd/{handle}")):
                raise BadOption(f"{path}: is where {stream} goes; name another file")
    for (name, path), (other_name, other) in combinations(written.items(), 2):
        if is_one_file(path, other):
            raise BadOption(f"{path}: is named for {name} and {other_name}; name two")


def is_one_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file, by whatever links; or would where case does not count."""
    with suppress(OSError):
        if path.exists() or other.exists():
            return path.exists() and other.exists() and path.samefile(other)
        one, two = (Path(os.path.realpath(each)) for each in (path, other))
        names = {unicodedata.normalize("NFC", each.name).casefold() for each in (one, two)}
        return len(names) == 1 and one.parent.samefile(two.parent)
    return False


# --- Writing --------------------------------------------------------------------------------------


def write_file(path: Path, data: bytes) -> None:
    """Writes a whole file, or leaves the old one as it was; a pipe or a device takes it at once."""
    if path.exists() and not path.is_file():
        with explaining(path, len(data)), path.open("wb", buffering=0) as device:
            view = memoryview(data)
            while view:
                view = view[device.write(view) :]
        return
    with SafeFile(path, len(data)) as file:
        file.write_at(0, data)
        file.commit()


@contextmanager
def explaining(target: Path, size: int) -> Iterator[None]:
    """Errors of the system in writing a file as BadFile."""
    try:
        yield
    except OSError as error:
        reason = (
            f"no room for {size:,} bytes ({error.strerror}); free some, or name a place on "
            "another disk"
        )
        if error.errno not in FULL:
            reason = f"cannot be written: {error.strerror}; name a file in a folder of yours"
        raise BadFile(f"{target}: {reason}. Nothing was changed") from None


@contextmanager
def where_known() -> Iterator[None]:
    """Goes on where the system or the disk does not know what is asked of it."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_KNOWN_HERE:
            raise


class SafeFile:
    """A new file of a fixed size beside its target, which it replaces at the end.

    The bytes go to a file without a name where the system has such (Linux): of a process that is
    killed nothing remains. Elsewhere it is a hidden file, removed unless the process is killed.
    Its space is reserved at once, so a full disk is found before the work. At the end the file is
    synced and named: where there is no target yet, as it at once; else as a hidden file, which is
    renamed over it. Whoever looks sees the old file or the new one.

    A writer holds a lock on its file. So the next one for the same target knows a hidden file that
    a killed one left, and removes it: ``removed``.

    Raises:
        BadFile: the disk is full or may not be written.
    """

    def __init__(self, target: Path, size: int) -> None:
        self.is_named, self._handle = False, -1  # named: the hidden name may be in the folder
        self.target, self.size = Path(os.path.realpath(target)), size
        try:
            with explaining(self.target, size):
                self.removed = remove_leftovers(self.target)
                self._create()
                self._reserve()
        except BaseException:
            self.close()
            raise

    def _create(self) -> None:
        self.hidden = hidden_name(self.target)
        if hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd"):
            with where_known():
                self._handle = os.open(self.target.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
                locks(self._handle)
                return
        self.is_named = True
        self._handle = os.open(self.hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        if not locks(self._handle) or not leads_to(self.hidden, self._handle):
            self.close()  # before it was locked another run took it for a leftover
            self._create()

    def _reserve(self) -> None:
        if self.size and hasattr(os, "posix_fallocate"):
            with where_known():
                os.posix_fallocate(self._handle, 0, self.size)

    def write_at(self, offset: int, data: Any) -> None:
        """Writes all the bytes of a buffer at a position."""
        view = memoryview(data).cast("B")
        with explaining(self.target, self.size):
            while view:
                count = os.pwrite(self._handle, view, offset)
                view, offset = view[count:], offset + count

    def commit(self) -> None:
        """Makes the file the target: synced, then named."""
        with explaining(self.target, self.size):
            with suppress(FileNotFoundError):
                os.fchmod(self._handle, self.target.stat().st_mode & 0o777)
            os.fsync(self._handle)
            if self.is_named or not self._link(self.target):
                if not self.is_named:
                    self.is_named = True
                    self._link(self.hidden)
                os.replace(self.hidden, self.target)
                self.is_named = False
        sync_folder(self.target.parent)

    def _link(self, path: Path) -> bool:
        """Gives the nameless file a name; False where there is a file of that name."""
        # With a handle (unused: both paths are absolute) Python calls linkat, which follows the
        # link in /proc; without, link, which does not.
        source, unused = f"/proc/self/fd/{self._handle}", self._handle
        try:
            os.link(source, path, src_dir_fd=unused, follow_symlinks=True)
        except FileExistsError:
            return False
        return True

    def close(self) -> None:
        """Drops the file unless it was committed."""
        with suppress(OSError):
            if self.is_named:
                self.is_named = False
                self.hidden.unlink(missing_ok=True)
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            with suppress(OSError):
                os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def __del__(self) -> None:  # interrupted between its creation and `with`
        self.close()


def sync_folder(folder: Path) -> None:
    """Makes a new name in a folder last through a loss of power, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- Hidden files ---------------------------------------------------------------------------------


def hidden_stem(target: Path) -> str:
    """What the hidden names for a target begin with: its own, as far as it fits."""
    room = os.pathconf(target.parent, "PC_NAME_MAX") - TOKEN - len("...part")
    return "." + os.fsdecode(os.fsencode(target.name)[:room]) + "."


def hidden_name(target: Path) -> Path:
    """A new name beside the target."""
    return target.with_name(f"{hidden_stem(target)}{secrets.token_hex(TOKEN // 2)}.part")


def locks(handle: int) -> bool:
    """Whether an open file is ours from now on; also where the disk knows no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def leads_to(path: Path, handle: int) -> bool:
    """Whether a name still is that of an open file."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def remove_leftovers(target: Path) -> list[Path]:
    """The hidden files for a target whose writers are dead, removed. What cannot be is let be."""
    with suppress(OSError):
        stem = re.escape(hidden_stem(target))
        pattern = re.compile(rf"{stem}[0-9a-f]{{{TOKEN}}}\.part", re.DOTALL)
        names = [name for name in os.listdir(target.parent) if pattern.fullmatch(name)]
        paths = [target.with_name(name) for name in names]
        return [path for path in paths if not path.is_dir() and is_removed(path)]
    return []


def is_removed(path: Path) -> bool:
    """Removes a file or folder of ours, unless its owner lives; whether it did."""
    with suppress(OSError), opened(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # an error where its owner lives
        mode = os.fstat(handle).st_mode
        if not leads_to(path, handle) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False
        shutil.rmtree(path) if stat.S_ISDIR(mode) else path.unlink()
        return True
    return False


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A handle of a file or folder, not of what a link leads to, and without waiting for a pipe."""
    kind = os.O_RDONLY if path.is_dir() else os.O_RDWR  # some disks lock for writers alone
    handle = os.open(path, kind | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Holds a lock on a folder; yields whether it is ours, and not taken for a leftover before."""
    with opened(folder) as handle:
        yield locks(handle) and leads_to(folder, handle)
