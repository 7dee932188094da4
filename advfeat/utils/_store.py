"""Arrays written into a folder batch by batch, so that a stopped run goes on where it was.

Each array (a *column*, with one row per sample) is one ``.npy`` file of its final size, written in
place. A file of checksums says which batches are there, and whether they still are what was
written: a batch whose rows do not fit its checksum is done again. ``manifest.json`` holds what
decides the content. Nothing is a pickle.
"""

import contextlib
import errno
import json
import math
import shutil
from pathlib import Path

import numpy as np

from advfeat.utils._files import (
    Lock,
    is_clutter,
    remove_partial_files,
    resolve_folder,
    sync_folder,
    writing,
)
from advfeat.utils._fingerprint import digest_arrays, fingerprint
from advfeat.utils._manifest import CHECKSUMS, Manifest, read_content
from advfeat.utils._npy import RowFile
from advfeat.utils._progress import progress_bar
from advfeat.utils._warnings import warn_caller

_DIGEST = 16  # bytes of a checksum
_EXTRAS = "extras.json"  # fingerprints of the small arrays
_REPEAT = "Repeat the call of fit_transform that began it."


class Store:
    """Columns of n rows in a folder, as a context manager.

    On entry the folder is compared with the manifest, locked if there is something to do, and the
    batches that an earlier run left are checked. Then `holds` says what is there, `put` keeps a
    batch, and `read` gives the columns.

    Parameters
    ----------
    folder : path
        Made if missing; ``~`` is expanded.
    manifest : dict of str to int, float, str, list or None
        Everything that decides the content.
    columns : dict of str to (dtype, shape of one row)
        The arrays, in the order in which `put` gets them.
    n : int
        Rows.
    batch_size : int
        Rows of a batch.
    extras : dict of str to ndarray, optional
        Small arrays to keep beside the columns, such as labels; known before the work.
    name : str, default="store"
        The user's parameter that gave the folder, for messages.
    made_with : dict, optional
        See `Manifest`.
    quick : bool, default=False
        Believe a folder whose files have the size and the time that they had at `finish`, without
        reading them. By default all is read and compared with the checksums.
    verbose : int, default=1
        Whether work of more than two seconds shows a progress bar.

    Raises
    ------
    ValueError
        On entry, if the folder holds something else.
    BlockingIOError
        On entry, if another process is writing into the folder.
    OSError
        On entry if the disk has not enough space, or when a batch cannot be written.
    """

    def __init__(
        self,
        folder,
        manifest,
        columns,
        n,
        batch_size,
        *,
        extras=None,
        name="store",
        made_with=None,
        quick=False,
        verbose=1,
    ):
        self.folder = resolve_folder(folder, name)
        self.name = f"{name}={str(folder)!r}"
        batch_size = int(batch_size)  # NumPy's small integers overflow
        self.n, self.batch_size = n, batch_size
        self.quick = quick
        self.verbose = verbose
        self.extras = extras or {}
        self._columns = {
            key: RowFile(self.folder / f"{key}.npy", dtype, (n, *shape))
            for key, (dtype, shape) in columns.items()
        }
        layout = {key: [c.dtype.str, *c.shape] for key, c in self._columns.items()}
        manifest = {**manifest, "batch_size": batch_size, "arrays": layout}
        self._manifest = Manifest(self.folder, self.name, manifest, made_with or {})
        self._checksums = self._checksum_file(self._manifest)
        self._stamp_file = self.folder / "finished.json"
        self._lock = Lock(self.folder / ".lock")

    def __enter__(self):
        noted = self._manifest.check(ours=self._checksums.path.exists) is not None
        # A finished folder is only read, by as many processes as like.
        if noted and _digests_in(self._checksums).any(axis=1).all() and self._has_extras():
            if self.n_missing() == 0:
                return self
        self._take_lock()
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def check_early(self):
        """Refuse what entering would refuse, while some keys of the manifest are not known yet.

        Nothing is kept but an empty folder.

        Raises
        ------
        ValueError, BlockingIOError, OSError
            As on entry.
        """
        there = self._manifest.check(
            ours=lambda: any(self.folder.glob(f"{CHECKSUMS}*")), early=True
        )
        if there is not None:
            kept = self._checksum_file(Manifest(self.folder, self.name, there, {}))
            if _digests_in(kept).any(axis=1).all():
                return  # finished: nothing is to be written
        self._take_lock()
        try:
            with self._named_errors():
                self._check_space()
        finally:
            self._lock.release()

    def __exit__(self, *error):
        self._lock.release()

    def holds(self, begin):
        """Whether the batch that begins at this row is there."""
        return bool(self._digests[begin // self.batch_size].any())

    def put(self, begin, part):
        """Keep the rows of one batch, one array per column.

        Raises
        ------
        OSError
            If they cannot be written; all batches before are kept.
        """
        n_rows = self._n_rows(begin)
        for (key, column), array in zip(self._columns.items(), part, strict=True):
            if array.dtype != column.dtype or array.shape != (n_rows, *column.shape[1:]):
                raise ValueError(
                    f"Expected {n_rows} rows of {column.dtype} and shape {column.shape[1:]} as "
                    f"{key!r} in {self.name}, got {array.dtype} of shape {array.shape}."
                )
        digest = np.frombuffer(digest_arrays(part), np.uint8)
        number = begin // self.batch_size
        with self._named_errors():
            for column, array in zip(self._columns.values(), part, strict=True):
                column.write(begin, array)
            self._checksums.write(number, digest)
        self._digests[number] = digest

    def n_missing(self):
        """Count the batches that are not there, or are damaged; nothing is written."""
        self._digests = _digests_in(self._checksums)
        if not (self.quick and self._is_untouched()):
            self._forget_damaged()
        return int((~self._digests.any(axis=1)).sum())

    def finish(self):
        """Note the size and time of the files, so that ``quick`` need not read them again."""
        if not self._is_untouched():
            with contextlib.suppress(OSError), writing(self._stamp_file) as file:
                file.write(json.dumps(self._stamps()).encode())

    def read(self):
        """Return the columns as read-only memory maps."""
        return tuple(column.map() for column in self._columns.values())

    @property
    def digests(self):
        """Checksum of each batch, bytes."""
        return [row.tobytes() for row in self._digests]

    def _checksum_file(self, manifest):
        # The name ties the checksums to the manifest, should that file get damaged.
        path = self.folder / f"{CHECKSUMS}{manifest.key}.npy"
        return RowFile(path, np.uint8, (math.ceil(self.n / self.batch_size), _DIGEST))

    def _take_lock(self):
        with self._named_errors():
            self.folder.mkdir(parents=True, exist_ok=True)
            locked = self._lock.acquire()
        if not locked:
            raise BlockingIOError(
                f"{self.name} is being written by another process. Wait until it has ended, or "
                "choose another folder."
            )

    def _open(self):
        """With the lock held: make what is missing, and find out what is there."""
        # Another process may have begun since.
        self._manifest.check(ours=self._checksums.path.exists)
        with self._named_errors():
            remove_partial_files(self.folder)
            self._check_space()
            begun = self._manifest.path.exists()
            lost = begun and self._checksums.read(0, self._checksums.shape[0]) is None
            self._digests = _digests_in(self._checksums)
            # First the file whose name says whose folder this is, last the manifest: a kill
            # in between must not leave files that seem to be somebody else's.
            for file in (self._checksums, *self._columns.values()):
                file.make()
            if not self._has_extras():
                for key, array in self.extras.items():
                    with writing(self.folder / f"{key}.npy") as file:
                        np.save(file, array, allow_pickle=False)
                with writing(self.folder / _EXTRAS) as file:
                    file.write(json.dumps(_digests_of(self.extras)).encode())
            sync_folder(self.folder)
            self._manifest.write()
        if lost:
            warn_caller(
                f"The checksums in {self.name} are missing or damaged: all is done again.",
            )
        n_begun = self._digests.any(axis=1).sum()
        n_damaged = self._forget_damaged()
        if n_damaged:
            warn_caller(
                f"{n_damaged} of the {n_begun} batches kept in {self.name} are damaged and are "
                "done again.",
            )

    def _forget_damaged(self):
        """Take batches whose rows do not fit their checksum for missing; return how many."""
        n_damaged = 0
        numbers = np.flatnonzero(self._digests.any(axis=1))
        desc = f"checking {self.folder.name}"
        with progress_bar(
            total=len(numbers), desc=desc, unit="batch", verbose=self.verbose
        ) as bar:
            for number in numbers:
                begin = int(number) * self.batch_size
                rows = [c.read(begin, self._n_rows(begin)) for c in self._columns.values()]
                missing = any(r is None for r in rows)
                if missing or digest_arrays(rows) != self._digests[number].tobytes():
                    self._digests[number] = 0
                    n_damaged += 1
                bar.update()
        return n_damaged

    def _n_rows(self, begin):
        return min(self.batch_size, self.n - begin)

    def _has_extras(self):
        if not self.extras:
            return True
        try:
            noted = json.loads((self.folder / _EXTRAS).read_bytes())
            return noted == _digests_of(self.extras) and all(
                np.array_equal(np.load(self.folder / f"{key}.npy", allow_pickle=False), array)
                for key, array in self.extras.items()
            )
        except Exception:  # as in `_read_extras`
            return False

    def _check_space(self):
        """Refuse to begin what the disk cannot hold."""
        needed = sum(column.missing_space() for column in self._columns.values())
        usage = shutil.disk_usage(self.folder)
        if usage.total and needed > usage.free:
            raise OSError(
                errno.ENOSPC, f"{needed:,} bytes are needed, the disk has {usage.free:,} left"
            )

    def _stamps(self):
        """Say of what state of the files `finish` speaks."""
        status = {key: column.path.stat() for key, column in self._columns.items()}
        stamps = {key: [s.st_size, s.st_mtime_ns] for key, s in status.items()}
        return {"digests": digest_arrays([self._digests]).hex(), "files": stamps}

    def _is_untouched(self):
        try:
            return json.loads(self._stamp_file.read_bytes()) == self._stamps()
        except (OSError, ValueError):
            return False

    @contextlib.contextmanager
    def _named_errors(self):
        try:
            yield
        except OSError as error:
            raise OSError(
                error.errno,
                f"Cannot write into {self.name}: {error.strerror or error}. Finished batches are "
                "kept: make it possible to write there, and call again with the same settings",
            ) from error


def open_finished(folder):
    """Read all arrays of a finished store, columns as read-only memory maps.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    ValueError
        If the folder is no store, or batches are missing or damaged.
    """
    folder = Path(folder)
    content = read_content(folder)
    try:
        arrays, batch_size = content.pop("arrays"), content["batch_size"]
        columns = {key: (np.dtype(dtype), shape) for key, (dtype, _, *shape) in arrays.items()}
        (n,) = {n for _, n, *_ in arrays.values()}
        sizes = [n, batch_size, *(side for _, shape in columns.values() for side in shape)]
        if any(type(size) is not int or size < 1 for size in sizes):
            raise ValueError(f"sizes of {sizes}")
        store = Store(folder, content, columns, n, batch_size, quick=True)
        n_missing = store.n_missing()
    except (OSError, MemoryError):
        raise
    except Exception as error:  # what damaged bytes of the manifest make of this is of any kind
        raise ValueError(
            f"'{folder}' is damaged: its manifest.json does not say what it holds ({error!r:.80})."
        ) from error
    if n_missing:
        raise ValueError(
            f"'{folder}' is not finished: {n_missing} of {math.ceil(n / store.batch_size)} "
            f"batches are missing or damaged. {_REPEAT}"
        )
    found = dict(zip(columns, store.read(), strict=True))
    return {**found, **_read_extras(folder, found)}


def _read_extras(folder, columns):
    """Read the small arrays beside the columns; a ValueError if they are not what was kept."""
    try:
        noted = folder / _EXTRAS
        others = [
            path
            for path in folder.glob("*.npy")
            if path.stem not in columns
            and not path.name.startswith(CHECKSUMS)
            and not is_clutter(path.name)
        ]
        # Whose they are only the list says: a user may have put one there.
        kept = json.loads(noted.read_bytes()) if others or noted.exists() else {}
        files = {key: folder / f"{key}.npy" for key in kept}
        extras = {k: np.load(f, allow_pickle=False) for k, f in files.items() if f.exists()}
    except PermissionError:
        raise
    except Exception as error:  # what damaged bytes make of NumPy's reader is of any kind
        raise ValueError(f"'{folder}' is damaged: {error}. {_REPEAT}") from error
    found = _digests_of(extras)
    if wrong := [key for key in kept if found.get(key) != kept[key]]:
        raise ValueError(f"'{folder}' is damaged: {wrong[0]}.npy is not what was kept. {_REPEAT}")
    return extras


def _digests_in(file):
    """Checksums of the batches as they are in their file; zeros for those that are not there."""
    content = file.read(0, file.shape[0])
    if content is None:
        return np.zeros(file.shape, np.uint8)
    return content.reshape(file.shape).copy()


def _digests_of(arrays):
    return {key: fingerprint(array) for key, array in arrays.items()}
