"""A file that appears under its name when it is whole, and not before."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from crossent.evaluation.errors import BadFile

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_KNOWN_HERE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EISDIR, errno.ENOTSUP)


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
    synced, named, and renamed over the target: whoever looks sees the old file or the new one.

    Raises:
        BadFile: the disk is full or may not be written.
    """

    def __init__(self, target: Path, size: int) -> None:
        self.target, self.size = Path(os.path.realpath(target)), size
        self.hidden = self.target.with_name(f".{self.target.name}.{secrets.token_hex(6)}.part")
        self.is_named, self._handle = False, -1
        try:
            with self._explaining():
                self._create()
                self._reserve()
        except BadFile:
            self.close()
            raise

    def _reserve(self) -> None:
        if self.size and hasattr(os, "posix_fallocate"):
            with where_known():
                os.posix_fallocate(self._handle, 0, self.size)

    def _create(self) -> None:
        if hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd"):
            with where_known():
                self._handle = os.open(self.target.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
                return
        self._handle = os.open(self.hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        self.is_named = True

    def write_at(self, offset: int, data: Any) -> None:
        """Writes all the bytes of a buffer at a position."""
        view = memoryview(data).cast("B")
        with self._explaining():
            while view:
                count = os.pwrite(self._handle, view, offset)
                view, offset = view[count:], offset + count

    def commit(self) -> None:
        """Makes the file the target: synced, then renamed."""
        with self._explaining():
            if self.target.exists():
                os.fchmod(self._handle, self.target.stat().st_mode & 0o777)
            os.fsync(self._handle)
            if not self.is_named:
                # With a handle (unused: both paths are absolute) Python calls linkat, which follows
                # the link in /proc; without, link, which does not.
                source, unused = f"/proc/self/fd/{self._handle}", self._handle
                os.link(source, self.hidden, src_dir_fd=unused, follow_symlinks=True)
                self.is_named = True
            os.replace(self.hidden, self.target)
            self.is_named = False
        sync_folder(self.target.parent)

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        """Errors of the system as BadFile."""
        try:
            yield
        except OSError as error:
            reason = (
                f"no room for {self.size:,} bytes ({error.strerror}); free some, or name a place "
                "on another disk"
            )
            if error.errno not in FULL:
                reason = f"cannot be written: {error.strerror}; name a file in a folder of yours"
            raise BadFile(f"{self.target}: {reason}. Nothing was changed") from None

    def close(self) -> None:
        """Drops the file unless it was committed."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self.is_named:
            self.hidden.unlink(missing_ok=True)
            self.is_named = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def sync_folder(folder: Path) -> None:
    """Makes a rename in a folder last through a loss of power, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
