"""Where the tasks of a run are worked on: in this process, or where joblib's backend says.

Own code stands here only where joblib leaves something to be wished for: its dask backend never
comes back from a task that kills its worker and its ray backend hands over nothing before all is
done, so tasks go to dask and to ray directly. Everywhere the network travels once to each worker
(as one array of bytes, which joblib maps into memory and clusters keep), rows travel with their
task, and a task whose worker was lost is done again.
"""

import asyncio
import math
import os
import pickle
import threading
import time
from concurrent import futures
from contextlib import closing, suppress
from functools import partial
from multiprocessing import current_process
from uuid import uuid4

import numpy as np
import torch
from joblib import Parallel, cpu_count, delayed, wrap_non_picklable_objects
from joblib.externals.loky.process_executor import TerminatedWorkerError
from joblib.parallel import get_active_backend

from advfeat.exceptions import BatchError, WorkersLostError
from advfeat.utils._arrays import sendable
from advfeat.utils._device import default_modes

_LOSSES = 3  # times that tasks are given to other workers, as in dask
_SMALL = "10K"  # larger arrays are mapped into memory, so that a message fits into a pipe
_GROUP = 16  # tasks for each worker after which joblib gives back what it mapped for them
_NO_WORKERS = 60.0  # seconds without any worker after which a cluster is given up
_POLL = 1.0  # seconds between two looks at whether a cluster, or a parent, is still there


def check_backend(n_jobs):
    """Refuse what no work can be shared by; the constructors ask before they train a source.

    Raises
    ------
    ValueError
        For ``n_jobs=0``, and for processes of joblib's "multiprocessing" backend.
    """
    backend, configured = get_active_backend()
    if (configured if n_jobs is None else n_jobs) == 0:
        raise ValueError("n_jobs=0 has no meaning. Use 1 for this process, or -1 for all cores.")
    if type(backend).__name__ == "MultiprocessingBackend" and n_jobs not in (None, 1):
        raise ValueError(
            "joblib's 'multiprocessing' backend forks this process, and torch does not survive a "
            "fork. Use 'loky' (the default), 'threading', 'dask' or 'ray'."
        )


def run_tasks(job, begins, cut, n_jobs):
    """Yield ``(begin, job(begin, *cut(begin)))`` for each begin, in the order of completion.

    Parameters
    ----------
    job : callable
    begins : list of int
    cut : callable
        Gives the rows of one task.
    n_jobs : int or None
        1 works in this process, everything else is joblib's. Under "multiprocessing" None counts
        as 1: a search that refits its best estimator passes None.

    Raises
    ------
    BatchError
        If a task raises.
    WorkersLostError
        If workers are lost more than three times, or the cluster is gone.
    ValueError
        See `check_backend`.
    """
    check_backend(n_jobs)
    backend, configured = get_active_backend()
    n_jobs = configured if n_jobs is None else n_jobs
    kind = type(backend).__name__
    if kind == "MultiprocessingBackend":
        n_jobs = 1
    if kind == "LokyBackend" and (len(begins) == 1 or _n_workers(backend, n_jobs) == 1):
        n_jobs = 1  # in this process, with the network that is here
    if n_jobs == 1 or (kind == "DaskDistributedBackend" and _in_dask_task()):
        return ((begin, _work(job, begin, cut(begin))) for begin in begins)
    if kind == "DaskDistributedBackend":
        return _on_dask(backend, job, begins, cut)
    if kind == "RayBackend":
        return _on_ray(backend, job, begins, cut, n_jobs)
    return _with_joblib(backend, job, begins, cut, n_jobs)


def _n_workers(backend, n_jobs):
    return backend.effective_n_jobs(1 if n_jobs is None else n_jobs)


def _work(job, begin, rows):
    try:
        with default_modes():
            return job(begin, *rows)
    except Exception as error:  # of the user's network, or for want of memory: say where
        last = begin + len(rows[0]) - 1
        raise BatchError(
            f"The work on rows {begin} to {last} failed: {type(error).__name__}: {error}"
        ) from error


# joblib


def _with_joblib(backend, job, begins, cut, n_jobs):
    size, n_losses = max(1, len(begins)), 0
    call, rows = partial(delayed(_task), job), cut
    if not getattr(backend, "supports_sharedmem", False):
        call = partial(delayed(_packed_task), *_pack(job))
        rows = partial(_sent, cut)
    if type(backend).__name__ == "LokyBackend":  # it keeps all rows sent until its tasks are done
        size = _GROUP * _n_workers(backend, n_jobs)
    for first in range(0, len(begins), size):
        waiting = dict.fromkeys(begins[first : first + size])
        while waiting:
            try:
                with closing(_parallel(backend, call, list(waiting), rows, n_jobs)) as results:
                    for begin, part in results:
                        del waiting[begin]
                        yield begin, part
            except TerminatedWorkerError as error:
                n_losses += 1
                if n_losses > _LOSSES:
                    raise _lost(f"{n_losses} times a worker process ended") from error


class Bounded(Parallel):
    """joblib's Parallel, but a task begins only if the results of few others wait to be taken.

    joblib goes on with the next task as soon as one is done: results that are written more slowly
    than they come would fill the memory.
    """

    window = math.inf  # tasks under way, results that wait among them
    n_taken = 0
    dispatching = False  # tasks are started by callbacks, not one by one by whoever takes results

    def dispatch_next(self):
        with self._lock:
            self.dispatching = True
            room = self.n_dispatched_tasks - self.n_taken < self.window
            if room and self._original_iterator is not None:
                super().dispatch_next()

    def take(self, results):
        """Yield the results."""
        for result in results:
            self.n_taken += 1
            if self.dispatching:
                self.dispatch_next()
            yield result


def _parallel(backend, call, begins, rows, n_jobs):
    settings = {"n_jobs": n_jobs, "return_as": "generator_unordered", "batch_size": 1}
    most = max(len(begins), cpu_count())  # with fewer, joblib would end workers and start others
    if _n_workers(backend, n_jobs) > most:
        settings["n_jobs"] = n_jobs = most
    if type(backend).__name__ == "LokyBackend":
        settings["max_nbytes"] = _SMALL
        if "initializer" not in backend.backend_kwargs:
            settings.update(initializer=end_with_parent, initargs=(os.getpid(),))
    if not backend.supports_return_generator:
        settings["return_as"] = "list"
    parallel = Bounded(**settings)
    if settings["return_as"] != "list":
        parallel.window = 2 * _n_workers(backend, n_jobs)
    yield from parallel.take(parallel(call(begin, *rows(begin)) for begin in begins))


def _task(job, begin, *rows):
    return begin, _work(job, begin, rows)


def end_with_parent(parent):
    """Start a thread that ends this process as soon as process ``parent`` is not its parent.

    Else a worker whose parent was killed waits for minutes, or for the rest of a message for ever.
    """
    if os.name == "posix" and parent not in _watched:
        _watched.add(parent)
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent):
    while os.getppid() == parent:
        time.sleep(_POLL)
    os._exit(1)


# torch's threads do not survive a fork: the child of a process that has used them would wait for
# them for ever, as joblib's "multiprocessing" backend does in scikit-learn's searches.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

_watched: set = set()
if type(current_process()).__name__ == "LokyProcess":  # also a worker that a search has started
    end_with_parent(os.getppid())


# A job as one array of bytes. Workers keep the last ones that they unpacked.
_unpacked: dict = {}
_lock = threading.Lock()


def _pack(job):
    """Name and bytes of a job, with functions and classes of the user's own script."""
    try:
        packed = pickle.dumps(wrap_non_picklable_objects(job, keep_wrapper=False))
    except Exception as error:  # of the user's network, as those of torch.export
        raise BatchError(
            f"The network cannot be sent to other processes, only to threads: {error}."
        ) from error
    return uuid4().hex, np.frombuffer(packed, dtype=np.uint8)


def _sent(cut, begin):
    return tuple(map(sendable, cut(begin)))


def _packed_task(name, packed, begin, *rows):
    with _lock:
        if name not in _unpacked:
            while len(_unpacked) > 1:
                del _unpacked[next(iter(_unpacked))]
            with default_modes():
                _unpacked[name] = _unpack(packed)
        job = _unpacked[name]
    return begin, _work(job, begin, rows)


def _unpack(packed):
    try:
        return pickle.loads(memoryview(packed))
    except (ImportError, AttributeError) as error:
        raise BatchError(
            f"A worker cannot load the network: {type(error).__name__}: {error}. The module that "
            "defines it must be importable, and the same, where the workers are."
        ) from error


# dask


def _in_dask_task():
    from distributed import get_worker

    try:
        get_worker()
    except ValueError:
        return False
    return True


def _on_dask(backend, job, begins, cut):
    import dask
    from distributed import CancelledError, KilledWorker, wait

    client, reading, losses = backend.client, False, []

    def send(*task, **settings):
        # Tasks hold their data, so that the scheduler can give them to another worker. That is
        # fine, since few are under way at a time; dask would warn that it is not.
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1 TiB"}):
            return client.submit(*task, pure=False, **settings)

    name, packed = _pack(job)
    packed = send(np.asarray, packed)  # a task of its own: sent once, made again where it is lost

    def submit(begin):
        nonlocal reading
        reading = True
        rows = _sent(cut, begin)
        reading = False
        settings = backend.submit_kwargs
        if places and "workers" not in settings:
            settings = {"workers": places.pop(), "allow_other_workers": True, **settings}
        return send(_packed_task, name, packed, begin, *rows, **settings)

    def finished(tasks):
        with suppress(asyncio.TimeoutError):  # another class than TimeoutError on Python 3.10
            done = wait(tasks, timeout=_POLL, return_when="FIRST_COMPLETED").done
            return [task for task in done if task.status != "lost"]
        return []

    def result(task):
        # dask's own `result` waits, maybe for ever, until a value that got lost is made again. A
        # timeout would end slow transfers as well: one goes on for as long as dask has the value.
        value = asyncio.wait_for(task, None)  # a coroutine, for the thread in which dask waits
        transfer = asyncio.run_coroutine_threadsafe(value, client.loop.asyncio_loop)
        try:
            while task.status in ("finished", "error"):
                if futures.wait([transfer], timeout=_POLL).done:
                    return transfer.result()
        finally:
            transfer.cancel()
        losses.append(task.key)
        if losses.count(task.key) > _LOSSES:  # dask counts only losses while a task is worked on
            raise _lost("those that held the result of one of the tasks ended again and again")

    def alive():
        if client.status != "running":
            raise _lost("the connection to dask's scheduler is closed")
        with suppress(OSError):  # the client tries for some time to find the scheduler again
            return bool(client.nthreads())

    try:
        # A place for each of the first tasks: dask would give all to the worker that has the
        # network, and send their rows again when it hands them on.
        places = [address for address, n in client.nthreads().items() for _ in range(2 * n)]
        window = max(2, len(places))
        yield from _windowed(begins, submit, finished, result, alive, window)
    except KilledWorker as error:
        raise _lost("those that worked on one of the tasks ended again and again") from error
    except (CancelledError, OSError) as error:
        if reading:  # of the user's files
            raise
        raise _lost(f"the cluster is gone ({error})") from error


# ray


def _on_ray(backend, job, begins, cut, n_jobs):
    import ray
    from ray.exceptions import GetTimeoutError, RayError, RayTaskError

    n_workers = backend.effective_n_jobs(-1 if n_jobs is None else n_jobs)
    name, packed = _pack(job)
    packed = ray.put(packed)
    task = ray.remote(_packed_task).options(max_retries=_LOSSES, **(backend.ray_remote_args or {}))

    def submit(begin):
        return task.remote(name, packed, begin, *_sent(cut, begin))

    def finished(references):
        return ray.wait(references, num_returns=1, timeout=_POLL)[0]

    def result(reference):
        with suppress(GetTimeoutError):  # `wait` brought it here: it was lost since then
            return ray.get(reference, timeout=_POLL)

    try:
        window = 2 * n_workers
        alive = ray.is_initialized
        yield from _windowed(begins, submit, finished, result, alive, window, ray.cancel)
    except RayTaskError as error:
        raise error.cause from error
    except RayError as error:
        raise _lost("those that worked on one of the tasks ended again and again") from error


def _windowed(begins, submit, finished, result, alive, window, cancel=None):
    """Keep a bounded number of tasks on a cluster; yield results as they come."""
    waiting, running, seen = iter(begins), [], time.monotonic()
    try:
        while True:
            while len(running) < window and (begin := next(waiting, None)) is not None:
                running.append(submit(begin))
            if not running:
                return
            n_running, failure = len(running), None
            for task in finished(running):
                try:
                    outcome = result(task)
                except Exception as error:
                    # Not raised before the others that are done were handed on.
                    failure = failure or error
                else:
                    if outcome is None:  # lost, and on its way again
                        continue
                    yield outcome
                running.remove(task)
            if failure is not None:
                raise failure
            if len(running) < n_running or alive():
                seen = time.monotonic()
            elif time.monotonic() - seen > _NO_WORKERS:
                raise _lost(f"the cluster has had no worker for {_NO_WORKERS:g} seconds")
    finally:
        for task in running if cancel else ():
            cancel(task)


def _lost(what):
    return WorkersLostError(
        f"Workers were lost: {what}. Most often they had no memory left: use fewer workers. "
        "Batches that were finished are kept where a store was given, and the same call goes on "
        "from them. A smaller batch_size helps as well, but needs a new store."
    )
