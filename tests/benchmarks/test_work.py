"""Numbers of the kinds of work: raised, or the code recorded as the same."""

import json

import pytest

import work


def test_the_code_of_every_kind_is_recorded_with_its_number():
    changed = work.changed()
    assert not changed, (
        f"The code of {changed} is not what benchmarks/work.json records. If it gives the same "
        "results as before: python benchmarks/work.py --same. If it gives others: "
        "python benchmarks/work.py --raise KIND ..."
    )


@pytest.mark.parametrize(
    ("given", "raised"),
    [
        ("measure", {"measure"}),
        ("goh", {"goh"}),
        *((kind, set(work.KINDS)) for kind in sorted(work._CHAIN)),
    ],
)
def test_with_sources_and_sets_all_that_is_made_of_them_is_raised(
    given, raised, tmp_path, monkeypatch
):
    before = {kind: entry["number"] for kind, entry in work._recorded().items()}
    copy = tmp_path / "work.json"
    copy.write_text(work._TABLE.read_text())
    monkeypatch.setattr(work, "_TABLE", copy)
    work.main(["--raise", given])
    work.number.cache_clear()
    after = {kind: entry["number"] for kind, entry in work._recorded().items()}
    assert {kind for kind in after if after[kind] != before[kind]} == raised


@pytest.fixture
def code(tmp_path, monkeypatch):
    """A library of two modules, and one kind that begins in the second."""
    folder = tmp_path / "advfeat"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "a.py").write_text("def f(x):\n    return x + 1\n")
    (folder / "b.py").write_text("from advfeat.a import f\n\n\ndef g(x):\n    return f(x)\n")
    monkeypatch.setattr(work, "_ROOT", tmp_path)
    monkeypatch.setattr(work, "_TABLE", tmp_path / "work.json")
    monkeypatch.setattr(work, "KINDS", {"train": ("advfeat.b",)})

    def fingerprint():
        for cached in (work._imported, work._code, work.number):
            cached.cache_clear()
        return work.fingerprint("train")

    yield folder, fingerprint
    for cached in (work._imported, work._code, work.number):
        cached.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        '"""A docstring."""\n# a comment\n\ndef f(x: int) -> int:\n    """Add one."""\n'
        "    return x + 1\n",
        "def f(\n    x,\n):\n    return (x + 1)\n",
    ],
)
def test_comments_docstrings_annotations_and_layout_change_nothing(code, text):
    folder, fingerprint = code
    before = fingerprint()
    (folder / "a.py").write_text(text)
    assert fingerprint() == before


def test_moved_code_is_the_same_and_other_code_is_not(code):
    folder, fingerprint = code
    before = fingerprint()
    (folder / "a.py").rename(folder / "c.py")
    (folder / "b.py").write_text((folder / "b.py").read_text().replace("advfeat.a", "advfeat.c"))
    assert fingerprint() == before
    for text in ("def f(x):\n    return x + 2\n", "def f(x):\n    return None\n"):
        (folder / "c.py").write_text(text)
        assert fingerprint() != before


def test_record_the_same_or_raise_the_number(code, capsys):
    folder, fingerprint = code
    fingerprint()
    assert work.changed() == ["train"]
    work.main(["--same"])
    assert work.number("train") == 1 and work.changed() == []
    (folder / "a.py").write_text("def f(x):\n    return x + 2\n")
    fingerprint()
    work.main([])
    assert "Other code than recorded: train" in capsys.readouterr().out
    work.main(["--raise", "train"])
    assert work.number("train") == 2 and work.changed() == []
    assert json.loads((folder.parent / "work.json").read_text())["train"]["number"] == 2
