"""Machine code that is kept: in memory for this process, on disk for the next."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

__all__ = ["Store", "user_folder"]

_DIGEST = hashlib.sha256().digest_size


def user_folder() -> Path:
    """Return where this user's machine code is kept, by the custom of the platform."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tensorfast" / "cuda"


class Store:
    """Bytes by key, made when they are first asked for.

    A file holds the digest of its bytes before them, so that one that was cut off or changed is
    made anew; it is written under another name and then moved, so that no reader finds half of it.
    What is loaded runs on the GPU, so a folder that someone else owns is not used, and one of ours
    is closed to all others. Where the folder cannot be used a warning says so, once, and what is
    made lasts as long as the process.

    Parameters
    ----------
    folder : Path, optional
        Made at the first use; `user_folder` if not given.

    Notes
    -----
    ``cuda.core.utils.FileStreamProgramCache`` takes whatever its folder holds for good and raises
    where it cannot write. Nothing is ever dropped here: an entry is 20 to 100 KB, and there are as
    many as there are kinds of problems.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._usable: bool | None = None
        self._known: dict[str, bytes] = {}
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], bytes]) -> bytes:
        """Return what is kept under ``key``, a name of letters and digits; else ``make()`` it."""
        with self._lock:
            found = self._known.get(key)
            if found is None:
                found = self._read(key)
                if found is None:
                    found = make()
                    self._write(key, found)
                self._known[key] = found
            return found

    def _read(self, key: str) -> bytes | None:
        if not self._ready():
            return None
        try:
            content = (self._where / key).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._give_up(error)
            return None
        digest, data = content[:_DIGEST], content[_DIGEST:]
        return data if hashlib.sha256(data).digest() == digest else None

    def _write(self, key: str, data: bytes) -> None:
        if not self._ready():
            return
        try:
            # Only its owner may read or write what mkstemp makes.
            handle, name = tempfile.mkstemp(prefix=".", dir=self._where)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(hashlib.sha256(data).digest() + data)
                os.replace(name, self._where / key)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)
                raise
        except OSError as error:
            self._give_up(error)

    @property
    def _where(self) -> Path:
        return self._folder or user_folder()

    def _ready(self) -> bool:
        if self._usable is None:
            self._usable = True
            try:
                self._where.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._close_to_others()
            except (OSError, RuntimeError) as error:
                self._give_up(error)
        return self._usable

    def _close_to_others(self) -> None:
        if os.name != "posix":
            return
        status = self._where.stat()
        if status.st_uid != os.geteuid():
            raise PermissionError("another user owns it")
        if status.st_mode & 0o077:
            self._where.chmod(0o700)

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        try:
            where = str(self._where)
        except RuntimeError:
            where = "the user's cache folder"
        warnings.warn(
            f"tensorfast.cuda: {where} cannot be used ({error}), so compiled kernels last as long "
            "as this process and are compiled again in the next; make it writable to keep them",
            RuntimeWarning,
            stacklevel=2,
        )
