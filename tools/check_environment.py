"""Say what an environment lacks; run by the interpreter of that environment.

``python -I check_environment.py REQUIREMENTS MODULES`` takes two JSON lists and prints an object:
"missing" (requirements without a fitting distribution), "failing" (the error of the first module
that cannot be imported, or null) and, if there is any of these, "damaged" (name==version of the
distributions with files gone or of another size than recorded). Uses the standard library alone.
"""

import importlib
import importlib.metadata
import json
import os
import re
import sys
import warnings


def normalised(name):
    """Name of a distribution as packaging tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version):
    """Numbers of a version: "2.14.0+cpu" gives (2, 14, 0)."""
    numbers = re.match(r"[0-9.]*", version).group().strip(".")
    return tuple(int(part) for part in numbers.split(".") if part)


def fits(version, specifier):
    """Whether a version is what ``>=1.2``, ``==1.2`` or ``==1.2.*`` asks for."""
    for part in filter(None, specifier.split(",")):
        operator, wanted = re.fullmatch(r"\s*(>=|==)\s*([\w.*]+)\s*", part).groups()
        found, bound = release(version), release(wanted)
        if operator == "==":
            length = len(bound) if wanted.endswith(".*") else max(len(found), len(bound))
            pad = (0,) * length
            if (found + pad)[:length] != (bound + pad)[:length]:
                return False
        elif found < bound:
            return False
    return True


def missing(requirements, installed):
    """Those requirements that no installed distribution meets."""
    lacking = []
    for requirement in requirements:
        name, specifier = re.fullmatch(r"([\w.-]+)\s*(.*)", requirement).groups()
        version = installed.get(normalised(name))
        if version is None or not fits(version, specifier):
            lacking.append(requirement)
    return lacking


def is_damaged(distribution):
    """Whether a recorded file of this distribution is gone or has another size."""
    for file in distribution.files or ():
        if file.size is None or file.suffix == ".pyc":
            continue
        try:
            if os.stat(str(distribution.locate_file(file))).st_size != file.size:
                return True
        except OSError:
            return True
    return False


def failing(modules):
    """Error of the first module that cannot be imported, or None."""
    for module in modules:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                importlib.import_module(module)
        except BaseException as error:  # noqa: BLE001, whatever a damaged package raises
            return f"import {module}: {type(error).__name__}: {error}"
    return None


def main():
    """Print what is missing, failing and damaged."""
    requirements, modules = (json.loads(argument) for argument in sys.argv[1:3])
    distributions = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name is not None:  # else the remains of an installation that was interrupted
            # The first of a name hides those in later folders of the path.
            distributions.setdefault(normalised(name), distribution)
    installed = {name: distribution.version for name, distribution in distributions.items()}
    found = {"missing": missing(requirements, installed), "failing": failing(modules)}
    damaged = []
    if found["missing"] or found["failing"]:  # looking at every file takes a while
        damaged = [name for name in sorted(installed) if is_damaged(distributions[name])]
    found["damaged"] = [f"{name}=={installed[name]}" for name in damaged]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
