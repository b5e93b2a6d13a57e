"""A file that appears under its name when it is whole, and not before."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any

from crossent.evaluation.errors import BadFile

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_KNOWN_HERE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EISDIR, errno.ENOTSUP)


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
        self.is_named = False
        try:
            self._handle = self._create()
            self._reserve()
        except OSError as error:
            self.close()
            raise self._explained(error) from None

    def _create(self) -> int:
        self._handle = -1
        if hasattr(os, "O_TMPFILE") and os.path.exists("/proc/self/fd"):
            try:
                return os.open(self.target.parent, os.O_TMPFILE | os.O_RDWR, 0o666)
            except OSError as error:
                if error.errno not in NOT_KNOWN_HERE:
                    raise
        handle = os.open(self.hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        self.is_named = True
        return handle

    def _reserve(self) -> None:
        if self.size and hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._handle, 0, self.size)
            except OSError as error:
                if error.errno not in NOT_KNOWN_HERE:
                    raise

    def write_at(self, offset: int, data: Any) -> None:
        """Writes all the bytes of a buffer at a position."""
        view = memoryview(data).cast("B")
        try:
            while view:
                count = os.pwrite(self._handle, view, offset)
                view, offset = view[count:], offset + count
        except OSError as error:
            raise self._explained(error) from None

    def commit(self) -> None:
        """Makes the file the target: synced, then renamed."""
        try:
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
        except OSError as error:
            raise self._explained(error) from None

    def _explained(self, error: OSError) -> BadFile:
        if error.errno in FULL:
            return BadFile(
                f"{self.target}: no room for {self.size:,} bytes ({error.strerror}); free some, or "
                "name a place on another disk. Nothing was changed"
            )
        return BadFile(
            f"{self.target}: cannot be written: {error.strerror}; name a file in a folder of "
            "yours. Nothing was changed"
        )

    def close(self) -> None:
        """Drops the file unless it was committed."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        if self.is_named:
            self.hidden.unlink(missing_ok=True)
            self.is_named = False

    def __enter__(self) -> SafeFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()


def sync_folder(folder: Path) -> None:
    """Makes a rename in a folder last through a loss of power, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
