"""Tell what is still missing for the release that a tag names; `release.yml` asks.

``python3 tools/check_release.py v0.1.0`` ends with an error if the version, the citation, the
changelog and the tag do not agree, or if README says what would be wrong on a package index.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
UNRELEASED = "nothing has been released yet"


def main():
    """Check the tag named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: check_release.py TAG, such as v0.1.0")
    problems = missing(ROOT, sys.argv[1])
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def missing(root, tag):
    """List what stands against publishing the files of ``root`` under a tag."""
    version = version_of(root)
    citation = _read(root, "CITATION.cff")
    day = r"\d{4}-\d{2}-\d{2}"
    found = []
    if tag != f"v{version}":
        found.append(f"The tag is {tag}, but advfeat/_version.py says {version}.")
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        found.append(f"{version} is no version to publish: take its end away.")
    if not re.search(rf"^version: {re.escape(version)}$", citation, re.M):
        found.append(f"CITATION.cff needs the line 'version: {version}'.")
    if not re.search(rf"^date-released: '?{day}'?$", citation, re.M):
        found.append("CITATION.cff needs the line 'date-released: YYYY-MM-DD'.")
    if not re.search(r"^repository-code: \S+$", citation, re.M):
        found.append("CITATION.cff needs the line 'repository-code: ADDRESS'.")
    if not re.search(rf"^## \[{re.escape(version)}\] - {day}$", _read(root, "CHANGELOG.md"), re.M):
        found.append(f"CHANGELOG.md needs the heading '## [{version}] - YYYY-MM-DD'.")
    if not re.search(r"^Repository = ", _read(root, "pyproject.toml"), re.M):
        found.append("pyproject.toml needs the Repository's address in [project.urls].")
    readme = _read(root, "README.md")
    beside = relative_links(readme)
    if beside:
        found.append(
            f"{len(beside)} links and pictures of README.md lead to files beside it, which a "
            f"package index does not have: begin them with an address. The first: {beside[0]}"
        )
    if UNRELEASED in readme:
        found.append(f"README.md says that {UNRELEASED}, and how to install without a release.")
    return found


def version_of(root):
    """Version that the package says it has."""
    return re.search(r'__version__ = "([^"]+)"', _read(root, "advfeat/_version.py")).group(1)


def relative_links(text):
    """List where the links and pictures of a page lead to, if to files beside it."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    targets = re.findall(r"\]\(<?([^)\s>]+)[^)]*\)", text)
    targets += re.findall(r"\b(?:src|href)=[\"']([^\"']+)", text)
    targets += re.findall(r"^\[[^\]]+\]:\s*<?([^\s>]+)", text, re.M)
    return [target for target in targets if not re.match(r"\w+:|#", target)]


def _read(root, name):
    return (root / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    main()
