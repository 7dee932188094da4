"""Time the optimisation loop against hand-written loops and other libraries.

    python benchmarks/speed.py --out results      # minutes; other libraries: the "bench" extra
    python benchmarks/speed.py --smoke            # seconds: does everything run?

Contenders alternate (A B C, C B A), so that a machine that slows down slows all of them alike, and
none always follows the one that leaves it the caches warm; the median over the repeats and the
range are reported. Run nothing else meanwhile.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

import contenders
import provenance
from advfeat.classifiers.networks import NETWORKS, build_network
from advfeat.utils._device import resolve_device
from arguments import positive
from files import make_folder, write_text

PACKAGES = ("torch", "torchvision", "torchattacks", "foolbox", "adversarial-robustness-toolbox")
_WARM_UP = 3  # calls; on a GPU graphs are captured after some twenty steps of one kind


def main(arguments=None):
    """Measure all tasks, print a table and write speed.json."""
    options = _parse(arguments)
    if options.smoke:
        options.network, options.size = "small_cnn", 8
        options.batch_size, options.repeats, options.steps = 8, 1, 2
    device = resolve_device(options.device)
    make_folder(options.out)
    net, x, y = _problem(options, device)
    flops = _forward_flops(net, x)
    n_batches = 4 if device.type == "cpu" else 16  # of adversarial training
    tasks = {  # name: (contenders, image-steps of one call)
        f"L2 PGD, {options.steps} steps": (
            contenders.pgd(net, x, y, options.steps, options.precision),
            len(x) * options.steps,
        ),
        "L2 PGD, one measure more each": (
            contenders.measures(net, x, y, options.steps),
            len(x) * options.steps,
        ),
        f"inversion, {options.steps} steps": (
            contenders.inversion(net, x, options.steps, options.precision),
            len(x) * options.steps,
        ),
        f"adversarial training, PGD-{options.steps}": (
            contenders.adversarial_training(
                options.network, *_many(x, y, n_batches), len(x), options.steps, options.precision
            ),
            n_batches * len(x),
        ),
        "standard training, one epoch": (
            contenders.epoch(options.network, *_many(x, y, 8), len(x), options.precision),
            8 * len(x),
        ),
    }
    rows = []
    n_calls = (options.repeats + _WARM_UP) * sum(len(entry[0]) for entry in tasks.values())
    with tqdm(total=n_calls, desc="speed", unit="call") as bar:
        for task, (callables, n_images) in tasks.items():
            rows += _measure(task, callables, n_images, options.repeats, device, bar)
    peak = _peak(device) if device.type == "cuda" else None
    _print(rows, options, flops)
    if peak:
        _print_shares(rows, flops, peak)
    _write(options, rows, device, flops, peak)


def _parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    images = [name for name in NETWORKS if name != "mlp"]
    parser.add_argument("--network", choices=images, default="resnet18")
    parser.add_argument("--size", type=positive, default=32, help="height and width (32)")
    parser.add_argument("--batch-size", type=positive, default=64, metavar="N")
    parser.add_argument("--steps", type=positive, default=7, metavar="N")
    parser.add_argument("--repeats", type=positive, default=4, metavar="N")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER")
    parser.add_argument("--smoke", action="store_true", help="a tiny network, once")
    return parser.parse_args(arguments)


def _problem(options, device):
    """Network in eval mode and one batch."""
    generator = torch.Generator().manual_seed(0)
    shape = (3, options.size, options.size)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.25)
        net = build_network(options.network, shape, 10, mean, std).to(device).eval()
    x = torch.rand(options.batch_size, *shape, generator=generator).to(device)
    y = torch.arange(options.batch_size, device=device) % 10
    return net, x, y


def _many(x, y, n):
    return x.repeat(n, 1, 1, 1), y.repeat(n)


def _forward_flops(net, x):
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        net(x)
    return counter.get_total_flops() / len(x)


def _peak(device, n=8192, repeats=10):
    """Multiply large bfloat16 matrices; return the operations per second, in TFLOP/s."""
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16)
    seconds = []
    for _ in range(repeats + 3):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        a @ a
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
    return 2 * n**3 / statistics.median(seconds[3:]) / 1e12


def _measure(task, callables, n_images, repeats, device, bar):
    """Milliseconds per image (and step) of each contender, interleaved, once warm."""
    times = {name: [] for name in callables}
    reached = {}
    for repeat in range(repeats + _WARM_UP):
        for name, call in list(callables.items())[:: 1 if repeat % 2 else -1]:
            begun = time.perf_counter()
            loss = call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= _WARM_UP:
                times[name].append(1e3 * (time.perf_counter() - begun) / n_images)
            reached[name] = loss()
            bar.update()
    ours = statistics.median(times["advfeat"])
    return [
        {
            "task": task,
            "contender": name,
            "ms": statistics.median(values),
            "ms_min": min(values),
            "ms_max": max(values),
            "ratio": statistics.median(values) / ours,
            "loss": reached[name],
        }
        for name, values in times.items()
    ]


def _print(rows, options, flops):
    print(
        f"{options.network}, {options.size}x{options.size}, batch {options.batch_size}, "
        f"advfeat and tuned loop in {options.precision}, others in fp32; "
        f"{flops / 1e9:.3f} GFLOP forward; medians of {options.repeats}"
    )
    print(f"{'ms per image (and step)':<30}{'':<20}{'median':>9}{'min':>9}{'max':>9}", end="")
    print(f"{'/ advfeat':>11}{'loss':>12}")
    for i, row in enumerate(rows):
        first = i == 0 or rows[i - 1]["task"] != row["task"]
        print(
            f"{row['task'] if first else '':<30}{row['contender']:<20}{row['ms']:>9.3f}"
            f"{row['ms_min']:>9.3f}{row['ms_max']:>9.3f}{row['ratio']:>11.2f}{_number(row['loss']):>12}"
        )


def _print_shares(rows, flops, peak):
    """Say which share of the peak the loop's steps reach: a forward and a backward pass each."""
    print(f"bfloat16 matrix product: {peak:.0f} TFLOP/s")
    for row in rows:
        if row["contender"] == "advfeat" and row["task"].startswith(("L2 PGD,", "inversion")):
            reached = 2 * flops / (1e-3 * row["ms"]) / 1e12
            print(f"  {row['task']}: {reached:.1f} TFLOP/s, {100 * reached / peak:.1f} % of it")


def _number(value):
    return "not given" if value is None else f"{value:.4g}"


def _write(options, rows, device, flops, peak):
    report = {
        "commit": provenance.commit(),
        "date": provenance.today(),
        "settings": {k: v for k, v in vars(options).items() if k != "out"},
        "forward_gflop": flops / 1e9,
        "bf16_peak_tflops": peak,
        "hardware": provenance.hardware(device),
        "versions": provenance.versions(PACKAGES),
        "rows": rows,
    }
    path = options.out / "speed.json"
    write_text(path, json.dumps(report, indent=1) + "\n")
    print(f"Written to {path}")


if __name__ == "__main__":
    main()
