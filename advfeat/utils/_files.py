"""Files that nobody finds half-written, locks that die with their holder, clutter of systems."""

import contextlib
import errno
import glob
import os
import stat
import time
import uuid
from pathlib import Path

from advfeat.utils._warnings import warn_caller

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial"
_LEFT_OVER = 3600  # seconds without a write after which nobody is writing any more
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# What operating systems, desktops and network drives put into folders of their own accord; hidden
# names are found by their dot.
_CLUTTER = {
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@recently-snapshot",
    "@tmp", "__macosx", "desktop.ini", "ehthumbs.db", "icon\r", "lost+found",
    "network trash folder", "system volume information", "temporary items", "thumbs.db",
    "~snapshot",
}  # fmt: skip


def is_clutter(name):
    """Whether a file or folder of this name is hidden or not the user's own."""
    return name.startswith(".") or name.lower() in _CLUTTER


def printable(path):
    """Path as text that can be printed, whatever its bytes are."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def resolve_path(path, name, what="a folder"):
    """Path of ``what``, given as the parameter ``name``, with ``~`` expanded.

    Raises
    ------
    TypeError
        For what is no path.
    ValueError
        For an empty path, one with a NUL, or the home of an unknown user.
    """
    try:
        text = os.fsdecode(path)
    except TypeError as error:
        raise TypeError(f"{name} must be a path, as text or a Path. Got {path!r}.") from error
    if not text.strip() or "\0" in text:
        raise ValueError(f"{name} must name {what}. Got {path!r}.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name}={text!r} begins with the home of an unknown user.") from error


def resolve_folder(folder, name):
    """Path of a folder given as the parameter ``name``, with ``~`` expanded.

    Raises
    ------
    TypeError, ValueError
        As `resolve_path`.
    FileExistsError
        If there is a file of that name.
    """
    path = resolve_path(folder, name)
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{name}={str(folder)!r} must name a folder, but is a file.")
    return path


@contextlib.contextmanager
def writing(path):
    """Open a file for writing bytes; it appears under ``path`` whole and on the disk, or not.

    A link stays one: what it leads to is written. The permissions of a file that is there stay.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    IsADirectoryError, FileExistsError
        If the path is that of a folder, a device or a pipe.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected a folder '{path.parent}' to write '{path.name}' into.")
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder. Name a file in it.")
    mode = stat.S_IMODE(path.stat().st_mode) if path.is_file() else None
    if mode is None and path.exists():
        raise FileExistsError(f"'{path}' is a device or a pipe, which no file may replace.")
    # Unique: process numbers are not, where containers share a folder. A name has at most 255
    # bytes.
    begin = f".{os.fsencode(path.name)[:200].decode('utf-8', 'ignore')}."
    partial = path.with_name(f"{begin}{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with open(partial, "xb") as file:
            if mode is not None and hasattr(os, "fchmod"):
                with contextlib.suppress(OSError):  # file systems without permissions
                    os.fchmod(file.fileno(), mode)
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    remove_left_over(path.parent, begin)
    sync_folder(path.parent)


def remove_left_over(folder, begin=""):
    """Remove files of names that begin so which `writing` left long ago, when it was killed."""
    for path in folder.glob(f"{glob.escape(begin)}*{_PARTIAL}"):
        with contextlib.suppress(OSError):  # another process may have been faster
            if time.time() - path.stat().st_mtime > _LEFT_OVER:
                path.unlink()


def sync_folder(folder):
    """Put the names of a folder's files on the disk, where the system can."""
    if os.name != "nt":
        with contextlib.suppress(OSError):  # some network drives cannot; it may not be readable
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def remove_partial_files(folder):
    """Remove what `writing` left when its process was killed; nobody else may be writing."""
    for path in Path(folder).glob(f".*{_PARTIAL}"):
        path.unlink(missing_ok=True)


class Lock:
    """Exclusive right to write into a folder, held by a file; it ends with the process.

    Parameters
    ----------
    path : path
        The file; it stays.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._file = None

    def acquire(self):
        """Take the lock if nobody has it; return whether it is ours now."""
        file = open(self.path, "ab")
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            file.close()
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                file.close()
                raise
            warn_caller(
                f"The file system of '{self.path.parent}' has no locks ({error.strerror}): take "
                "care that no two processes write there.",
            )
        else:
            if not self._is_there(file):  # its holder removed it in between: no lock for others
                file.close()
                return False
        self._file = file
        return True

    def _is_there(self, file):
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def release(self):
        """Give the lock back."""
        if self._file is not None:
            file, self._file = self._file, None
            with file:
                if fcntl is not None:  # processes forked meanwhile have the file open, too
                    with contextlib.suppress(OSError):  # no locks here
                        fcntl.flock(file, fcntl.LOCK_UN)


def _lock(file):
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
