"""What made a result: commit, date, versions of the software, machine."""

import datetime
import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import advfeat

_PACKAGES = ("torch", "torchvision", "scikit-learn", "numpy", "scipy", "skorch", "pyautoattack")


@functools.cache
def commit():
    """Commit of this checkout; None outside git.

    A plus sign says that files were changed since, or that the library is not the one in it.
    """
    try:
        found = _git("rev-parse", "--short=10", "HEAD")
        other = (
            not Path(advfeat.__file__)
            .resolve()
            .is_relative_to(_git("rev-parse", "--show-toplevel"))
        )
        changed = other or _git("status", "--porcelain", "--untracked-files=no")
        return found + "+" * bool(changed)
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments):
    folder = Path(__file__).resolve().parent
    run = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return run.stdout.strip()


def today():
    """Date, in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).date().isoformat()


@functools.cache
def versions(packages=_PACKAGES):
    """Versions of Python and of packages (those that decide a result); None for those missing."""
    found = {"advfeat": advfeat.__version__, "python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def hardware(device):
    """Say what a run was computed on."""
    return {
        "device": _device_name(device),
        "processor": processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _device_name(device):
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "CPU" if device.type == "cpu" else device.type


@functools.cache
def processor():
    """Model of the CPU, as far as the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
