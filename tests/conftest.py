"""Settings and fixtures that all tests share."""

import os

# Before torch and matplotlib are imported, and inherited by worker processes: the nets here are
# too small for a second thread to help, and no test opens a window.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import signal
import sys
import threading
import warnings
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)

# They hold no doctests, and pytest, in search of them, takes several for one module.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

if not (Path(__file__).parents[1] / "benchmarks").is_dir():
    # `make test-wheel`: the tests alone. These are about other files of the repository.
    collect_ignore = ["benchmarks", "tools"]
    collect_ignore_glob.append("test_docs*.py")

if threading.current_thread() is threading.main_thread():
    # A shell without job control starts what runs in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Same examples in every run. No deadline: torch's first call in a process is slow.
hypothesis.settings.register_profile("advfeat", deadline=None, derandomize=True)
hypothesis.settings.load_profile("advfeat")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # a driver that is too old: then there is no CUDA here
    DEVICES = ["cpu"]
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False  # convolutions with three digits, by default
        DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))


@pytest.fixture(scope="session", params=DEVICES)
def device(request):
    """Every device of this machine in turn: "cpu", and "cuda" where there is one."""
    return request.param


@pytest.fixture(autouse=True)
def close_figures():
    """Close all figures after each test: matplotlib warns when many are open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def own_draws():
    """Let each test draw from the global generators as if it were the only one."""
    in_torch, in_numpy = torch.get_rng_state(), np.random.get_state()
    torch.manual_seed(0)
    np.random.seed(0)
    yield
    torch.set_rng_state(in_torch)
    np.random.set_state(in_numpy)


@pytest.fixture(scope="session")
def digits():
    """(X, y, X_test, y_test): 600 training and 200 test images of handwritten digits."""
    from advfeat.datasets import load_digits

    X, y = load_digits(split="train", return_X_y=True)
    X_test, y_test = load_digits(split="test", return_X_y=True)
    return X[:600], y[:600], X_test[:200], y_test[:200]


@pytest.fixture(scope="session")
def standard(digits):
    """StandardClassifier trained on the digits; not to be changed."""
    from advfeat import StandardClassifier

    X, y, _, _ = digits
    return StandardClassifier(max_epochs=15, device="cpu", random_state=0, verbose=0).fit(X, y)


@pytest.fixture(scope="session")
def adversarial(digits):
    """AdversarialClassifier (L2, eps 1) trained on the digits; not to be changed."""
    from advfeat import AdversarialClassifier

    X, y, _, _ = digits
    settings = {"max_epochs": 20, "device": "cpu", "random_state": 0, "verbose": 0}
    return AdversarialClassifier(eps=1.0, n_steps=3, **settings).fit(X, y)


# Class number and WordNet id of some ILSVRC2012 classes; ids in between are made up, in order.
KNOWN_IDS = {
    0: 1440764, 30: 1641577, 32: 1644900, 33: 1664065, 37: 1669191, 80: 1795545, 100: 1860187,
    118: 1978287, 121: 1981276, 151: 2085620, 268: 2113978, 281: 2123045, 285: 2124075,
    300: 2165105, 319: 2268443, 365: 2480495, 382: 2494079, 389: 2514041, 397: 2655020,
    999: 15075141,
}  # fmt: skip


@pytest.fixture(scope="session")
def imagenet(tmp_path_factory):
    """1000 class folders with one image each that tells its class number."""
    root = tmp_path_factory.mktemp("imagenet")
    ids = np.interp(np.arange(1000), list(KNOWN_IDS), list(KNOWN_IDS.values())).round().astype(int)
    for number, wnid in enumerate(ids):
        colour = (number // 256, number % 256, 0)
        _save(root / "train" / f"n{wnid:08}" / "0.png", colour, size=(12, 8))
        _save(root / "val" / f"n{wnid:08}" / "0.png", colour, size=(8, 8))
    return root


def _save(path, colour, size):
    path.parent.mkdir(parents=True)
    Image.new("RGB", size, colour).save(path)
