"""Create the virtual environment that the Makefile's commands run in.

``python3 tools/environment.py DIR [--oldest]`` installs the project and its extras from PyPI into
DIR and leaves a stamp there. It returns at once when the stamp says that DIR is up to date.
Nothing that others put there is deleted, so DIR may also be an environment of your own.

Uses the standard library alone, and no syntax that an old python3 cannot read.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXTRAS = "plots,bench,test"


def main():
    """Bring the environment named on the command line up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument(
        "--oldest", action="store_true", help="install the lowest admitted versions"
    )
    arguments = parser.parse_args()
    folder = ROOT / arguments.folder
    stamp = folder / "advfeat.installed"
    wanted = fingerprint(arguments.oldest)
    if is_current(stamp, wanted):
        return
    check_python()
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / "advfeat.lock"):
        if is_current(stamp, wanted):  # another make has done it meanwhile
            return
        with contextlib.suppress(FileNotFoundError):
            stamp.unlink()
        python = create(folder)
        install(python, folder, arguments.oldest)
        stamp.write_text(wanted)


def fingerprint(oldest):
    """Everything that an installation depends on, as one short text."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), pathlib.Path(__file__).read_bytes()]
    parts += [os.fsencode(str(ROOT)), str(oldest).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_current(stamp, wanted):
    """Whether the installation that the stamp stands for is the wanted one."""
    return stamp.is_file() and stamp.read_text() == wanted


def check_python():
    """Stop with advice if this interpreter is too old."""
    if sys.version_info < (3, 10):  # noqa: UP036
        version = sys.version.split()[0]
        sys.exit(
            f"advfeat needs Python 3.10 or newer; {sys.executable} is Python {version}.\n"
            "Install a newer one, or name it: make PYTHON=python3.12 ..."
        )


@contextlib.contextmanager
def lock(path):
    """Let one make at a time install."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make is installing here; waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def create(folder):
    """Create the environment if there is none, or half of one; return its interpreter."""
    python = folder / "bin" / "python"
    if os.path.lexists(str(python)):
        if not os.access(str(python), os.X_OK):
            sys.exit(f"{python} points to a Python that is gone. Remove {folder} and try again.")
        if (
            subprocess.call([str(python), "-m", "pip", "--version"], stdout=subprocess.DEVNULL)
            == 0
        ):
            return python
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"{sys.executable} has no module {' and no '.join(missing)}, so it cannot create a "
            "virtual environment.\nOn Debian or Ubuntu: sudo apt install python3-venv"
        )
    if subprocess.call([sys.executable, "-m", "venv", str(folder)]) != 0:
        sys.exit(f"The virtual environment {folder} could not be created; see above.")
    return python


def install(python, folder, oldest):
    """Install the project in editable form, with a line that shows how far it is."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if oldest:
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(oldest_versions()) + "\n")
        # No wheel for this Python: say so now, rather than compile for an hour and fail.
        command += ["--constraint", str(constraints), "--only-binary", ":all:"]
    command += ["--editable", f".[{EXTRAS}]"]
    print(
        f"Installing advfeat and what it needs into {folder}. PyTorch brings the CUDA libraries:\n"
        "the first time about 3 GB to download, 6 to 7 GB on disk, 12 GB while installing.",
        flush=True,
    )
    # pip's temporary files go there as well: /tmp may be too small for them.
    temporary = folder / "advfeat.tmp"
    shutil.rmtree(str(temporary), ignore_errors=True)  # a killed call may have left it
    temporary.mkdir()
    process = subprocess.Popen(command, cwd=str(ROOT), env=dict(os.environ, TMPDIR=str(temporary)))
    try:
        show_progress(process, folder)
    except KeyboardInterrupt:  # pip got it too
        process.wait()
    finally:
        shutil.rmtree(str(temporary), ignore_errors=True)
    if process.returncode != 0:
        sys.exit("The installation failed or was stopped. The next call starts it again.")


def oldest_versions():
    """Turn each lower bound in pyproject.toml into a pin: ``name>=1.2`` into ``name==1.2``."""
    text = (ROOT / "pyproject.toml").read_text()
    bounds = re.findall(r'"([\w-]+)>=([\w.]+)"', text)
    return [f"{name}=={version}" for name, version in bounds]


def show_progress(process, folder):
    """Show the size of the folder and the time gone while the process runs."""
    terminal = sys.stdout.isatty()
    start = time.monotonic()
    pause = 2 if terminal else 30
    while True:
        try:
            process.wait(timeout=pause)
        except subprocess.TimeoutExpired:
            line = f"  {folder_size(folder) / 1e9:.1f} GB, {time.monotonic() - start:.0f} s"
            print(line.ljust(30), end="\r" if terminal else "\n", flush=True)
        else:
            done = "installed" if process.returncode == 0 else "not installed"
            print(f"  {done} after {time.monotonic() - start:.0f} s".ljust(30), flush=True)
            return


def folder_size(folder):
    """Bytes in all files under the folder; files may vanish while they are counted."""
    total = 0
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size
    return total


if __name__ == "__main__":
    main()
