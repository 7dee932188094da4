"""How the cost of a construction grows with the data: time, memory, bytes sent to workers.

    python benchmarks/scale.py --out results      # hours
    python benchmarks/scale.py --smoke            # seconds: does everything run?

NonRobustRelabeler reads generated uint8 images from a memory map and writes into a store, in a
process of its own for each row of the table. What is sent is measured for loky (messages, and
arrays that joblib maps into memory) and for dask (what the workers' sockets received, scheduler
traffic included), and counted at submission for ray. Run nothing else meanwhile.
"""

import argparse
import contextlib
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator
from tqdm.auto import tqdm

from advfeat import NonRobustRelabeler, StandardClassifier
from provenance import hardware

SMALL, LARGE = (3, 32, 32), (3, 224, 224)
SIZES = [(2_000, SMALL), (8_000, SMALL), (32_000, SMALL), (128_000, SMALL), (4_000, LARGE)]
BACKENDS = ("serial", "loky", "dask", "ray")
N_WORKERS = 2


def main(arguments=None):
    """Measure every size on every backend, print a table and write scale.json."""
    options = _parse(arguments)
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    sizes = [(64, (3, 8, 8))] if options.smoke else SIZES
    backends = options.backends or (("serial",) if options.smoke else BACKENDS)
    runs = [
        {"backend": backend, "n": n, "shape": shape, "n_steps": options.n_steps}
        for n, shape in sizes
        for backend in backends
    ]
    rows = []
    for run in tqdm(runs, desc="scale", unit="run", disable=options.smoke):
        rows.append({**run, **(measure(**run) if options.smoke else _in_new_process(run))})
        print(_line(rows[-1]), flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        result = {"rows": rows, "n_workers": N_WORKERS, "hardware": hardware(torch.device("cpu"))}
        (options.out / "scale.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(backend, n, shape, n_steps):
    """Construct n images of this shape; return seconds, peak memory and bytes sent."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path, shape = Path(folder) / "X.npy", tuple(shape)
        X = np.lib.format.open_memmap(path, "w+", dtype=np.uint8, shape=(n, *shape))
        for begin in range(0, n, 1000):
            rows = X[begin : begin + 1000]
            rows[:] = rng.integers(0, 256, size=rows.shape, dtype=np.uint8)
        y = np.arange(n) % 10
        network = "small_cnn" if shape[1] < 64 else "resnet18"
        source = StandardClassifier(network, max_epochs=1, random_state=0, verbose=0)
        source.fit(np.array(X[:64]), y[:64])
        relabeler = NonRobustRelabeler(
            FrozenEstimator(source),
            n_steps=n_steps,
            n_jobs=1 if backend == "serial" else N_WORKERS,
            store=Path(folder) / "store",
            random_state=0,
            verbose=0,
        )
        X = np.load(path, mmap_mode="r")
        with _backend(backend) as sent:
            start = time.perf_counter()
            relabeler.fit_transform(X, y)
            seconds = time.perf_counter() - start
            n_bytes = sent()
    module = source.net_.module_
    return {
        "seconds": seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "sent_bytes": n_bytes,
        "data_bytes": n * int(np.prod(shape)),
        "network_bytes": sum(value.nbytes for value in module.state_dict().values()),
    }


@contextlib.contextmanager
def _backend(name):
    """Set up a backend; give a function that tells the bytes sent to its workers so far."""
    if name == "serial":
        yield lambda: 0
    elif name == "loky":
        with joblib.parallel_config("loky"), _counted_messages() as sent:
            yield sent
    elif name == "dask":
        from distributed import Client, LocalCluster

        with (
            LocalCluster(N_WORKERS, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
            joblib.parallel_config("dask"),
        ):
            before = sum(client.run(received).values())
            yield lambda: sum(client.run(received).values()) - before
    else:
        import ray
        from ray.util.joblib import register_ray

        ray.init(num_cpus=N_WORKERS, include_dashboard=False, log_to_driver=False)
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


def _in_new_process(run):
    command = [sys.executable, __file__, "--one", json.dumps(run)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _line(row):
    per_byte = (row["sent_bytes"] - N_WORKERS * row["network_bytes"]) / row["data_bytes"]
    return (
        f"{row['backend']:7} n={row['n']:<7} {'x'.join(map(str, row['shape'])):10} "
        f"{row['seconds']:8.1f} s   peak {row['peak_bytes'] / 2**20:7.0f} MiB   "
        f"sent {row['sent_bytes'] / 2**20:7.1f} MiB, {max(0, per_byte):.2f} of X"
    )


def _parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for scale.json")
    parser.add_argument("--backends", nargs="+", choices=BACKENDS)
    parser.add_argument("--n-steps", type=int, default=10, help="steps of the construction")
    parser.add_argument("--smoke", action="store_true", help="64 images, in this process")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
