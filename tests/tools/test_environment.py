"""tools/environment.py tells a whole environment from a damaged one; nothing is downloaded."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


environment = _load("environment")
check_environment = _load("check_environment")


@pytest.fixture(scope="module")
def venv(tmp_path_factory):
    """An environment without pip, and its folder of packages."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    return python, environment.site_packages(python)


def _install(site, name, version="1.2", text="x = 1\n"):
    """A distribution of one module, as pip leaves it."""
    (site / f"{name}.py").write_text(text)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(
        f"{name}.py,,{len(text)}\n{name}-{version}.dist-info/METADATA,,\n"
    )


def test_whole(venv):
    python, site = venv
    _install(site, "whole")
    found = environment.check(python, ["whole>=1.0"], ["whole"])
    assert found == {"missing": [], "failing": None, "damaged": []}
    assert environment.is_whole(found)


@pytest.mark.parametrize("requirement", ["absent", "old>=1.3", "old==1.1", "old==2.*"])
def test_missing(venv, requirement):
    python, site = venv
    if not (site / "old.py").exists():
        _install(site, "old", "1.2")
    found = environment.check(python, [requirement], [])
    assert found["missing"] == [requirement] and not environment.is_whole(found)


def test_package_gone_but_still_recorded(venv):
    python, site = venv
    _install(site, "gone", "3.1")
    (site / "gone.py").unlink()
    found = environment.check(python, ["gone"], ["gone"])
    assert "gone" in found["failing"] and "gone==3.1" in found["damaged"]
    calls = environment.pip_arguments(found, False, None, site)
    assert calls[0][:2] == ["--force-reinstall", "--no-deps"] and "gone==3.1" in calls[0]
    assert "--editable" in calls[1]


def test_package_cut_short(venv):
    python, site = venv
    _install(site, "short", text="def f(:\n    pass\n" * 3)
    (site / "short.py").write_text("def f(")
    found = environment.check(python, ["short"], ["short"])
    assert "SyntaxError" in found["failing"] and "short==1.2" in found["damaged"]


def test_pythonpath_does_not_stand_in(venv, tmp_path, monkeypatch):
    (tmp_path / "elsewhere.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert environment.check(venv[0], [], ["elsewhere"])["failing"]


def test_interpreter_gone(tmp_path):
    python = tmp_path / "bin" / "python"
    assert environment.check(python, [], []) is None
    python.parent.mkdir()
    python.symlink_to(tmp_path / "nowhere")
    assert environment.check(python, [], []) is None
    with pytest.raises(SystemExit, match="Remove the folder"):  # perhaps somebody's own
        environment.create(tmp_path)


def test_interpreter_gone_from_an_environment_of_ours(tmp_path, monkeypatch, capsys):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(tmp_path / "nowhere")
    (tmp_path / "advfeat.created").touch()
    commands = []
    monkeypatch.setattr(environment, "runs", lambda *_: False)
    monkeypatch.setattr(
        environment.subprocess, "call", lambda command: commands.append(command) or 0
    )
    environment.create(tmp_path)
    assert commands[-1][1:4] == ["-m", "venv", "--clear"]
    assert "made anew" in capsys.readouterr().out


def test_pip_installs_here_whatever_the_user_has_set(tmp_path, monkeypatch):
    for name in environment.ELSEWHERE:
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PIP_INDEX_URL", "kept")
    seen = {}

    class Process:
        returncode = 0

        def __init__(self, command, cwd, env):
            seen.update(command=command, env=env)

        def wait(self, timeout=None):
            pass

    monkeypatch.setattr(environment.subprocess, "Popen", Process)
    environment.install(tmp_path / "bin" / "python", tmp_path, [["something"]])
    assert not set(environment.ELSEWHERE) & set(seen["env"]) and "PIP_INDEX_URL" in seen["env"]
    assert seen["command"][-1] == "something" and "-I" in seen["command"]


def test_what_did_not_arrive_is_said(tmp_path, monkeypatch):
    found = {"missing": ["torch>=2.9.0"], "damaged": [], "failing": "import advfeat: ..."}
    monkeypatch.setattr(environment, "check", lambda *_: found)
    monkeypatch.setattr(environment, "create", lambda folder: folder / "bin" / "python")
    monkeypatch.setattr(environment, "install", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["environment.py", str(tmp_path / "venv")])
    with pytest.raises(SystemExit, match="torch>=2.9.0 did not arrive.*\n.*try again"):
        environment.main()


def test_a_whole_environment_is_left_alone(tmp_path, monkeypatch):
    whole = {"missing": [], "damaged": [], "failing": None}
    monkeypatch.setattr(environment, "check", lambda *_: whole)
    monkeypatch.setattr(environment, "install", lambda *_: pytest.fail("installs"))
    monkeypatch.setattr(sys, "argv", ["environment.py", str(tmp_path / "venv")])
    environment.main()
    assert not (tmp_path / "venv").exists()


def test_comments_are_no_requirements(tmp_path, monkeypatch):
    before = environment.wanted()
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('# "torch>=9"\n' + text + '\n# test = [\n# "x>=1"]\n')
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.wanted() == before


def test_requirements_are_those_of_the_project():
    if sys.version_info < (3, 11):
        pytest.skip("needs tomllib")
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    expected = project["dependencies"] + [
        entry for name in environment.EXTRAS for entry in extras[name]
    ]
    assert environment.wanted() == expected
    assert environment.wanted(docs=True) == extras["docs"]
    assert all("==" in entry for entry in environment.wanted(oldest=True))


def test_chained_environment_sees_the_other(venv, tmp_path):
    python, site = venv
    _install(site, "below")
    folder = tmp_path / "docs"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    upper = folder / "bin" / "python"
    environment.chain(upper, python.parent.parent)
    assert environment.is_whole(environment.check(upper, ["below"], ["below"]))
    _install(
        environment.site_packages(upper), "below", "2.0", "x = 2\n"
    )  # and may hide its packages
    assert environment.is_whole(environment.check(upper, ["below>=2.0"], ["below"]))


@pytest.mark.parametrize(
    ("version", "specifier", "answer"),
    [("2.14.0+cpu", ">=2.9.0", True), ("2.8", ">=2.9", False), ("1.2.0", "==1.2", True),
     ("0.17.3", "==0.17.*", True), ("0.18", "==0.17.*", False), ("1.10", ">=1.9,==1.*", True)],
)  # fmt: skip
def test_versions(version, specifier, answer):
    assert check_environment.fits(version, specifier) is answer


def test_help_without_docstrings():
    command = [sys.executable, "-OO", str(ROOT / "tools" / "environment.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout


def test_nothing_is_read_from_a_docstring():
    for path in (ROOT / "tools").glob("*.py"):
        assert "__doc__" not in path.read_text(encoding="utf-8"), path


def test_check_prints_json(venv):
    command = [str(venv[0]), "-I", str(ROOT / "tools" / "check_environment.py"), "[]", "[]"]
    assert json.loads(subprocess.check_output(command))["missing"] == []


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")  # no folder can be made below it, whoever asks
    command = [sys.executable, ROOT / "tools" / "environment.py", tmp_path / "file" / "venv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cannot be made: Not a directory. Choose a folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_make_passes_on_no_setting_that_leads_elsewhere(tmp_path):
    (tmp_path / "Makefile").write_text(
        f"include {ROOT / 'Makefile'}\nshown:\n\t@env\n.PHONY: shown\n"
    )
    elsewhere = {"PYTHONPATH": "/elsewhere", "PIP_TARGET": "/elsewhere"}
    done = subprocess.run(
        ["make", "shown"], cwd=tmp_path, env={**os.environ, **elsewhere},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "PATH=" in done.stdout
    assert "/elsewhere" not in done.stdout
