"""A regular file read by position. Never mapped: one that shrinks under a map kills the process."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path
from typing import Any

from crossent.evaluation.errors import BadFile


class PlainFile:
    """An open file that knows when it is not what it was: shorter, or changed, since it was opened.

    Raises:
        BadFile: there is no such file, it may not be read, or it is not a regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # O_NONBLOCK: opening a pipe must not wait for a writer.
            self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | O_BINARY)
        except FileNotFoundError:
            raise BadFile(f"{path}: there is no such file; is the path right?") from None
        except PermissionError:
            raise BadFile(f"{path}: may not be read; chmod +r it, or copy it") from None
        except OSError as error:
            raise BadFile(f"{path}: cannot be opened: {error.strerror}") from None
        status = os.fstat(self._handle)
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise BadFile(f"{path}: is {kind}; give a .npy, .npz or .safetensors file")
        self.size = status.st_size
        self._stamp = (status.st_size, status.st_mtime_ns)
        self._lock = threading.Lock()

    def read_into(self, buffer: Any, offset: int) -> None:
        """Fills a writable buffer with the bytes from ``offset``.

        Raises:
            BadFile: the file ends before the buffer is full, or the disk fails.
        """
        view = memoryview(buffer).cast("B")
        while view:
            try:
                count = self._read_some(view, offset)
            except OSError as error:
                raise BadFile(
                    f"{self.path}: cannot be read at byte {offset:,}: {error.strerror}; copy it "
                    "from where it is whole"
                ) from None
            if count == 0:
                raise BadFile(
                    f"{self.path}: ended at byte {offset:,} of {self.size:,}: it shrank while it "
                    "was read; run again when it is no longer written to"
                )
            view, offset = view[count:], offset + count

    def _read_some(self, view: memoryview, offset: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._handle, [view], offset)
        with self._lock:  # pragma: no cover (Windows)
            os.lseek(self._handle, offset, os.SEEK_SET)
            data = os.read(self._handle, len(view))
            view[: len(data)] = data
            return len(data)

    def bytes_at(self, offset: int, count: int) -> bytes:
        """``count`` bytes, or fewer at the file's end."""
        data = bytearray(max(0, min(count, self.size - offset)))
        self.read_into(data, offset)
        return bytes(data)

    def stream(self) -> io.FileIO:
        """The file as an object with a position; it must not outlive this one."""
        return io.FileIO(self._handle, closefd=False)

    def check_unchanged(self) -> None:
        """Raises BadFile where the file has been written to since it was opened."""
        status = os.fstat(self._handle)
        if (status.st_size, status.st_mtime_ns) != self._stamp:
            raise BadFile(
                f"{self.path}: changed while it was read; run again when it is no longer written to"
            )

    def close(self) -> None:
        """Closes the file; once is enough."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


O_BINARY = getattr(os, "O_BINARY", 0)  # Windows
