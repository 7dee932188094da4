"""Files that nobody finds half-written, locks that die with their holder, clutter of systems."""

import contextlib
import errno
import os
import uuid
import warnings
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PARTIAL = ".partial"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
# What operating systems, desktops and network drives put into folders of their own accord; hidden
# names are found by their dot.
_CLUTTER = {
    "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recycle", "@recently-snapshot",
    "__macosx", "desktop.ini", "ehthumbs.db", "icon\r", "lost+found",
    "system volume information", "thumbs.db",
}  # fmt: skip


def is_clutter(name):
    """Whether a file or folder of this name is hidden or not the user's own."""
    return name.startswith(".") or name.lower() in _CLUTTER


def printable(path):
    """Path as text that can be printed, whatever its bytes are."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def resolve_folder(folder, name):
    """Path of a folder given as the parameter ``name``, with ``~`` expanded.

    Raises
    ------
    ValueError
        For an empty path.
    FileExistsError
        If there is a file of that name.
    """
    if not str(folder).strip():
        raise ValueError(f"{name} must name a folder. Got {folder!r}.")
    path = Path(folder).expanduser()
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{name}={str(folder)!r} must name a folder, but is a file.")
    return path


@contextlib.contextmanager
def writing(path):
    """Open a file for writing bytes; it appears under ``path`` whole and on the disk, or not.

    The temporary name is unique: process numbers are not, where containers share a folder.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected a folder '{path.parent}' to write '{path.name}' into.")
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with open(partial, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder):
    """Put the names of a folder's files on the disk, where the system can."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network drives cannot
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
            warnings.warn(
                f"The file system of '{self.path.parent}' has no locks ({error.strerror}): take "
                "care that no two processes write there.",
                UserWarning,
                stacklevel=2,
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
