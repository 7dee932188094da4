"""How the cost of a construction grows with the data: time, memory, bytes sent to workers.

    python benchmarks/scale.py --out results/scale     # a quarter of an hour on two cores; goes on
    python benchmarks/scale.py --smoke                 # seconds: does everything run?

Generated uint8 images are read from a memory map, and the set is written into a store, in a
process of its own for each row of the table, after a small construction that starts the workers.

- Time is wall time, and CPU time of all processes; only the latter can be compared where something
  else runs meanwhile. ``reopen`` is the same call again: everything is there, and is checked.
- Memory is private memory (RssAnon), looked at ten times a second: what the process itself holds,
  without pages of files that it has mapped. ``shm`` is what lies in /dev/shm for workers.
- What is sent is measured for loky (messages, and arrays that joblib maps into memory) and for
  dask (what the workers' sockets received, scheduler traffic included), and counted at submission
  for ray.

The network of the rows "tiny" costs almost nothing, so that they show what everything else costs.
"""

import argparse
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from torch import nn
from tqdm.auto import tqdm

from advfeat import NonRobustRelabeler, RobustFeatureInverter, StandardClassifier
from arguments import positive
from files import make_folder, read_json, write_text
from provenance import commit, hardware, today, versions
from scale_page import MIB, report, sent_per_byte

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
SIZES = [(n, SMALL) for n in (2_000, 8_000, 32_000, 128_000, 384_000)] + [(4_000, LARGE)]
BACKENDS = ("serial", "loky", "dask", "ray")
N_WORKERS = 2
RAY_MEMORY = {"MALLOC_TRIM_THRESHOLD_": "1000000"}
COMPARED, N_REPEATS = 32_000, 3  # where backends are compared in time, one after the other
_RUN = ("constructor", "network", "n", "shape", "n_steps", "backend", "repeat")  # makes a row


def main(arguments=None):
    """Measure every size on every backend, print a table, write scale.json and README.md."""
    options = _parse(arguments)
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    rows, plan, kept = [], _plan(options), {}
    if options.out is not None:
        make_folder(options.out)
        earlier = read_json(options.out / "scale.json")
        here = {"hardware": hardware(torch.device("cpu")), "versions": versions()}
        if earlier and any(earlier.get(name) != here[name] for name in here):
            sys.exit(
                f"--out: the rows in '{options.out}' are of another machine or other versions. "
                "Name another folder."
            )
        kept = {_key(row): row for row in earlier.get("rows", [])}
    for run in tqdm(plan, desc="scale", unit="run", disable=options.smoke):
        row = kept.pop(_key(run), None)
        if row is None:
            settings = {name: value for name, value in run.items() if name != "repeat"}
            row = {**run, **(measure(**settings) if options.smoke else _in_new_process(settings))}
            row["commit"] = commit()
        rows.append(row)
        print(_line(row), flush=True)
        if options.out is not None:
            result = {
                "rows": [*rows, *kept.values()],
                "n_workers": N_WORKERS,
                **here,
                "date": today(),
            }
            write_text(options.out / "scale.json", json.dumps(result, indent=1) + "\n")
            write_text(options.out / "README.md", report(result))


def _key(run):
    return json.dumps([run.get(name) for name in _RUN])


def _plan(options):
    if options.smoke:
        kinds = [("relabeler", "tiny", 64, (3, 8, 8))]
    else:
        kinds = [("relabeler", "tiny", n, shape) for n, shape in SIZES]
        # Work that weighs as much as small networks do, and starts that travel too.
        kinds += [("relabeler", "small_cnn", 32_000, SMALL), ("inverter", "tiny", 8_000, SMALL)]
    return [
        dict(zip(_RUN, (*kind, options.n_steps, backend, repeat), strict=True))
        for kind in kinds
        for repeat in range(N_REPEATS if kind[2] == COMPARED else 1)
        for backend in options.backends or (("serial",) if options.smoke else BACKENDS)
    ]


def tiny(input_shape, n_classes):
    """Make a network that takes hardly any time."""
    n_channels, height, width = input_shape
    n = n_channels * (height // 8) * (width // 8)
    return nn.Sequential(
        nn.AvgPool2d(8), nn.Flatten(), nn.Linear(n, 64), nn.ReLU(), nn.Linear(64, n_classes)
    )


def measure(backend, n, shape, n_steps, network="tiny", constructor="relabeler"):
    """Construct a set of n images of this shape; return what it cost."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "X.npy", tuple(shape)
        X = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(n, *shape))
        for begin in range(0, n, 1000):
            rows = X[begin : begin + 1000]
            rows[:] = rng.integers(0, 256, size=rows.shape, dtype=np.uint8)
        y = np.arange(n) % 10
        source = StandardClassifier(
            tiny if network == "tiny" else network, max_epochs=1, random_state=0, verbose=0
        )
        source.fit(np.array(X[:64]), y[:64])
        del X, rows
        make = {"relabeler": NonRobustRelabeler, "inverter": RobustFeatureInverter}[constructor]

        def construct(rows, store, **settings):
            started = time.perf_counter()
            make(
                FrozenEstimator(source),
                n_steps=n_steps,
                n_jobs=1 if backend == "serial" else N_WORKERS,
                store=Path(folder) / store,
                random_state=0,
                verbose=0,
                **settings,
            ).fit_transform(X[:rows], y[:rows])
            return time.perf_counter() - started

        X = np.load(path, mmap_mode="r")
        with _backend(backend) as sent:
            construct(min(n, 64), "first", batch_size=8)
            n_bytes, cpu = sent(), _cpu_seconds()
            with _Memory() as memory:
                seconds = construct(n, "store")
            n_bytes, cpu = sent() - n_bytes, _cpu_seconds() - cpu
        reopen = construct(n, "store")
    module = source.net_.module_
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "reopen_seconds": reopen,
        "start_bytes": memory.start,
        "peak_bytes": memory.own,
        "worker_peak_bytes": memory.other,
        "shm_bytes": memory.shm,
        "sent_bytes": n_bytes,
        "data_bytes": n * int(np.prod(shape)),
        "set_bytes": 4 * n * int(np.prod(shape)),
        "network_bytes": sum(value.nbytes for value in module.state_dict().values()),
        "load": os.getloadavg()[0],
    }


class _Memory:
    """Peak of the private memory of this process and of the largest other one, and of /dev/shm."""

    def __enter__(self):
        self.own = self.start = _private_bytes(os.getpid())
        self.other = self.shm = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._ended.set()
        self._thread.join()

    def _watch(self):
        before = _shm_bytes()
        while True:
            own, *others = _family()
            self.own = max(self.own, _private_bytes(own))
            self.other = max([self.other, *map(_private_bytes, others)])
            self.shm = max(self.shm, _shm_bytes() - before)
            if self._ended.wait(0.1):
                return


def _family():
    """Numbers of this process and of all that it has started."""
    parents = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            parents[int(name)] = int(_stat(name)[1])
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def _stat(pid):
    """Fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _private_bytes(pid):
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return 1024 * int(line.split()[1])
    return 0


def _cpu_seconds():
    """CPU time of this process and of all that it has started, also of those that have ended."""
    ticks = 0
    for pid in _family():
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def _shm_bytes():
    usage = os.statvfs("/dev/shm")
    return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


@contextlib.contextmanager
def _backend(name):
    """Set up a backend; give a function that tells the bytes sent to its workers so far."""
    if name == "serial":
        yield lambda: 0
    elif name == "loky":
        with joblib.parallel_config("loky"), _counted_messages() as sent:
            yield sent
    elif name == "dask":
        import dask
        from distributed import Client, LocalCluster

        with (
            dask.config.set(
                {
                    # The scheduler is in this process: it would keep 1000 messages to each worker.
                    "distributed.admin.low-level-log-length": 10,
                    # dask's value makes workers ask for the memory of each batch anew.
                    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None,
                }
            ),
            LocalCluster(N_WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
            joblib.parallel_config("dask"),
        ):
            before = sum(client.run(received).values())
            yield lambda: sum(client.run(received).values()) - before
    else:
        import ray
        from ray.util.joblib import register_ray

        ray.init(
            num_cpus=N_WORKERS,
            include_dashboard=False,
            log_to_driver=False,
            # Its workers would keep the memory of earlier batches.
            runtime_env={"env_vars": RAY_MEMORY},
        )
        register_ray()
        try:
            with joblib.parallel_config("ray"), _counted_rows() as sent:
                yield sent
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _counted_messages():
    from multiprocessing.connection import Connection

    from joblib import _memmapping_reducer

    sizes, send, dump = [0], Connection.send_bytes, _memmapping_reducer.dump

    def counted_send(self, message, *args):
        sizes.append(memoryview(message).nbytes)
        return send(self, message, *args)

    def counted_dump(array, *args, **settings):
        sizes.append(array.nbytes)
        return dump(array, *args, **settings)

    Connection.send_bytes, _memmapping_reducer.dump = counted_send, counted_dump
    try:
        yield lambda: sum(sizes)
    finally:
        Connection.send_bytes, _memmapping_reducer.dump = send, dump


@contextlib.contextmanager
def _counted_rows():
    from advfeat.utils import _workers

    sizes, pack, run = [0], _workers._pack, _workers._on_ray

    def counted_pack(job):
        name, packed = pack(job)
        sizes.append(N_WORKERS * packed.nbytes)
        return name, packed

    def counted_run(backend, job, begins, cut, n_jobs):
        def counted_cut(begin):
            rows = cut(begin)
            sizes.append(sum(part.nbytes for part in rows))
            return rows

        return run(backend, job, begins, counted_cut, n_jobs)

    _workers._pack, _workers._on_ray = counted_pack, counted_run
    try:
        yield lambda: sum(sizes)
    finally:
        _workers._pack, _workers._on_ray = pack, run


def received():
    """Bytes that this process has received over TCP, on connections that are still open."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            duplicate = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with duplicate:
            if duplicate.type == socket.SOCK_STREAM and duplicate.family == socket.AF_INET:
                info = duplicate.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", info, 128)[0] if len(info) >= 136 else 0
    return total


def _in_new_process(settings):
    command = [sys.executable, __file__, "--one", json.dumps(settings)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _line(row):
    return (
        f"{row['constructor']} {row['network']:9} {row['backend']:6} n={row['n']:<6} "
        f"{row['shape'][-1]}x{row['shape'][-1]}  {row['seconds']:.1f} s, "
        f"{row['cpu_seconds']:.1f} s of CPU, reopened in {row['reopen_seconds']:.1f} s   "
        f"{row['peak_bytes'] / MIB:.0f} MiB, "
        f"before {row['start_bytes'] / MIB:.0f}, a worker {row['worker_peak_bytes'] / MIB:.0f}, "
        f"shm {row['shm_bytes'] / MIB:.0f}   sent {row['sent_bytes'] / MIB:.0f} MiB, "
        f"{sent_per_byte(row, N_WORKERS):.2f} of X"
    )


def _parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for scale.json and README.md")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS)
    parser.add_argument("--n-steps", type=positive, default=1, help="steps of the construction")
    parser.add_argument("--smoke", action="store_true", help="64 images, in this process")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
