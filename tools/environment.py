"""Create the virtual environment that the Makefile's commands run in.

``python3 tools/environment.py DIR [--oldest]`` installs the project and its extras from PyPI into
DIR; with ``--docs BASE`` it installs what builds the site, beside the packages of the environment
BASE, which stay as they are. An environment to which nothing is missing is left alone, also
offline; a damaged one is mended. Nothing that others put there is deleted, so DIR may also be an
environment of your own.

Uses the standard library alone, and no syntax that an old python3 cannot read.
"""

import argparse
import contextlib
import fcntl
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXTRAS = ("plots", "bench", "test")
# What is imported before an environment counts as whole.
MODULES = ["advfeat.plotting", "pytest", "xdist", "hypothesis", "pandas", "mpmath"]
DOCS_MODULES = [
    "sphinx", "numpydoc", "sphinx_gallery", "myst_parser", "pydata_sphinx_theme", "sphinx_design",
    "sphinx_copybutton", "advfeat.plotting",
]  # fmt: skip
# Settings of the user's pip that would lead an installation elsewhere.
ELSEWHERE = ("PIP_PREFIX", "PIP_TARGET", "PIP_USER", "PIP_ROOT", "PIP_DRY_RUN", "PIP_PYTHON")


def main():
    """Bring the environment named on the command line up to date."""
    parser = argparse.ArgumentParser(description="Create the environment of the commands.")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument(
        "--oldest", action="store_true", help="install the lowest admitted versions"
    )
    parser.add_argument(
        "--docs", type=pathlib.Path, metavar="BASE", help="install what builds the site"
    )
    arguments = parser.parse_args()
    folder = ROOT / arguments.folder
    base = None if arguments.docs is None else ROOT / arguments.docs
    requirements = wanted(arguments.oldest, docs=base is not None)
    modules = DOCS_MODULES if base is not None else MODULES
    python = folder / "bin" / "python"
    if is_whole(check(python, requirements, modules)):
        return
    check_python()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "advfeat.lock").open("w")
    except OSError as error:
        sys.exit(
            f"The environment {folder} cannot be made: {error.strerror}. Choose a folder that can "
            "be written to: make VENV=FOLDER ..."
        )
    with lock(file):
        found = check(python, requirements, modules)
        if is_whole(found):  # another make has done it meanwhile
            return
        python = create(folder)
        if base is not None:
            chain(python, base)
        found = check(python, requirements, modules)
        if not is_whole(found):
            install(python, folder, pip_arguments(found, arguments.oldest, base, folder))
            found = check(python, requirements, modules)
        if not is_whole(found):
            sys.exit(advice(folder, found))


def wanted(oldest=False, docs=False):
    """Read the project's requirements from pyproject.toml; lower bounds as pins if oldest."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    text = re.sub(r"#[^\n\"]*$", "", text, flags=re.MULTILINE)
    names = ["docs"] if docs else ["dependencies", *EXTRAS]
    requirements = []
    for name in names:
        entry = re.search(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
        requirements += re.findall(r'"([^"]+)"', entry.group(1))
    if oldest:
        requirements = [re.sub(r">=([\w.]+)", r"==\1", entry) for entry in requirements]
    return requirements


def check(python, requirements, modules):
    """Return what check_environment.py says, or None if the interpreter is gone."""
    script = str(ROOT / "tools" / "check_environment.py")
    command = [str(python), "-I", script, json.dumps(requirements), json.dumps(modules)]
    try:
        done = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return json.loads(done.stdout.decode().splitlines()[-1])
    except (OSError, ValueError, IndexError):
        return None


def is_whole(found):
    """Whether nothing is missing, damaged or failing."""
    return found is not None and not any(found.values())


def check_python():
    """Stop with advice if this interpreter is too old."""
    if sys.version_info < (3, 10):  # noqa: UP036
        version = sys.version.split()[0]
        sys.exit(
            f"advfeat needs Python 3.10 or newer; {sys.executable} is Python {version}.\n"
            "Install a newer one, or name it: make PYTHON=python3.12 ..."
        )


@contextlib.contextmanager
def lock(file):
    """Let one make at a time install."""
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another make is installing here; waiting for it.", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def runs(*command):
    """Whether a command can be started and succeeds."""
    try:
        return (
            subprocess.call(
                [str(part) for part in command],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            == 0
        )
    except OSError:
        return False


def create(folder):
    """Create the environment if there is none, or half of one; return its interpreter."""
    python, made_here = folder / "bin" / "python", folder / "advfeat.created"
    options = []
    if os.path.lexists(str(python)):
        if runs(python, "-I", "-m", "pip", "--version"):
            return python
        if not runs(python, "-I", "-c", "import encodings"):
            # Its packages belong to an interpreter that is gone; no other can use them.
            if not made_here.is_file():
                sys.exit(
                    f"The Python of {folder} does not start. Remove the folder, and try again."
                )
            print(f"The Python of {folder} does not start; the environment is made anew.")
            options = ["--clear"]
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"{sys.executable} has no module {' and no '.join(missing)}, so it cannot create a "
            "virtual environment.\nOn Debian or Ubuntu: sudo apt install python3-venv"
        )
    new = bool(options) or not os.path.lexists(str(python))
    if subprocess.call([sys.executable, "-m", "venv", *options, str(folder)]) != 0:
        sys.exit(f"The virtual environment {folder} could not be created; see above.")
    if new:
        made_here.touch()
    return python


def site_packages(python):
    """Folder of the packages of an interpreter."""
    command = [str(python), "-I", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return pathlib.Path(subprocess.check_output(command).decode().strip())


def chain(python, base):
    """Let an environment see the packages of another one, behind its own."""
    lines = [str(site_packages(base / "bin" / "python")), str(ROOT)]
    path = site_packages(python) / "advfeat-base.pth"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def pip_arguments(found, oldest, base, folder):
    """List the arguments of pip: damaged packages again, then whatever is missing."""
    found = found or {"missing": [], "damaged": []}
    calls = []
    others = [name for name in found["damaged"] if not name.lower().startswith("advfeat==")]
    if others:
        calls.append(["--force-reinstall", "--no-deps", *others])
    if base is not None:
        calls.append(wanted(docs=True))
    else:
        options = []
        if oldest:
            constraints = folder / "constraints.txt"
            constraints.write_text("\n".join(wanted(oldest=True)) + "\n", encoding="utf-8")
            # No wheel for this Python: say so now, rather than compile for an hour and fail.
            options = ["--constraint", str(constraints), "--only-binary", ":all:"]
        calls.append([*options, "--editable", ".[{}]".format(",".join(EXTRAS))])
    return calls


def install(python, folder, calls):
    """Call pip, with a line that shows how far it is."""
    print(f"Installing what is missing into {folder}.", flush=True)
    if not folder_size(folder) > 3e9 and folder.name != ".venv-docs":
        print(
            "PyTorch brings the CUDA libraries: the first time about 3 GB to download, 6 to 7 GB "
            "on disk, 12 GB while installing.",
            flush=True,
        )
    # pip's temporary files go there as well: /tmp may be too small for them.
    temporary = folder / "advfeat.tmp"
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    environment["TMPDIR"] = str(temporary)
    for arguments in calls:
        shutil.rmtree(str(temporary), ignore_errors=True)  # a killed call may have left it
        temporary.mkdir()
        command = [str(python), "-I", "-m", "pip", "install", "--quiet"]
        command += ["--disable-pip-version-check", *arguments]
        process = subprocess.Popen(command, cwd=str(ROOT), env=environment)
        try:
            show_progress(process, folder)
        except KeyboardInterrupt:  # pip got it too
            process.wait()
        finally:
            shutil.rmtree(str(temporary), ignore_errors=True)
        if process.returncode != 0:
            sys.exit("The installation failed or was stopped. The next call starts it again.")


def advice(folder, found):
    """One sentence on what is wrong, and the one thing to do."""
    if found is None:
        what = "its Python does not start"
    elif found["missing"]:
        what = f"{', '.join(found['missing'])} did not arrive there"
    elif found["damaged"]:
        what = f"{', '.join(found['damaged'])} stay damaged"
    else:
        what = found["failing"]
    return (
        f"{folder} is not usable: {what}.\nRemove the folder and try again. If that does not "
        "help, look whether `pip config list` names a target, a prefix or a user installation."
    )


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
