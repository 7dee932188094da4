"""What decides the content of a folder: written beside it, and compared before going on."""

import hashlib
import json

from advfeat.utils._errors import shortened
from advfeat.utils._files import is_clutter, writing

CHECKSUMS = "checksums-"  # how the names of the files of checksums begin
FORMAT = 2  # of the folders of `Store`; 1 had one npz file per batch


class Manifest:
    """The manifest of a folder.

    Parameters
    ----------
    folder : Path
    name : str
        The folder as the user gave it, for messages.
    content : dict of str to int, float, str, list or None
        Everything that decides what the folder holds.
    made_with : dict of str to str, int, float, bool or None
        What may change the content, such as versions and what a source was trained with. It is
        told where the contents differ, and compared only by an early check, when the rest of the
        content is not known yet.
    """

    def __init__(self, folder, name, content, made_with):
        self.path = folder / "manifest.json"
        self.name = name
        # As it is read again.
        self.content = _as_read({"format": FORMAT, **content})
        self.made_with = _as_read(made_with)
        text = json.dumps(self.content, sort_keys=True).encode()
        self.key = hashlib.blake2b(text, digest_size=8).hexdigest()

    def write(self):
        """Put it into the folder."""
        with writing(self.path) as file:
            content = {"content": self.content, "made_with": self.made_with}
            file.write(json.dumps(content, indent=1).encode())

    def check(self, ours, early=False):
        """Compare with what the folder holds.

        Parameters
        ----------
        ours : callable
            Says whether the folder has a file that only this content can have made. Then a
            manifest that is missing or damaged does no harm.
        early : bool, default=False
            Whether only a part of the content is known yet: then that part is compared, and what
            the rest will be made with.

        Returns
        -------
        dict or None
            The content that the folder holds, if a manifest says so.

        Raises
        ------
        ValueError
            If the folder holds something else.
        """
        try:
            kept = json.loads(self.path.read_bytes())
            there, made_with = dict(kept["content"]), dict(kept["made_with"])
        except FileNotFoundError:
            refuse_other_files(self.path.parent, self.name, unless=ours)
            return None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if ours():
                return None
            raise ValueError(
                f"'{self.path}' is damaged, or was not written by this version of advfeat, so it "
                "cannot be said what the folder holds. Choose another folder."
            ) from error
        here, whole = self.content, there
        if early:
            shared = self.made_with.keys() & made_with.keys()
            here = {**here, **{key: self.made_with[key] for key in shared}}
            whole = {**there, **{key: made_with[key] for key in shared}}
        keys = here if early else {**there, **here}
        differing = [key for key in keys if whole.get(key) != here.get(key)]
        if differing:
            raise ValueError(self._difference(differing, whole, here, made_with))
        return there

    def _difference(self, differing, there, here, made_with):
        names = ", ".join(_told(key, there, here) for key in differing)
        message = (
            f"{self.name} holds something else: it differs in {names}. Choose another folder for "
            "this, or repeat the settings and data of that to go on with it."
        )
        if "weights" in differing:
            message += (
                " A source that is trained anew gets the same weights only with the same data, "
                "versions and number of threads; train it once, keep it, and pass it in a "
                "FrozenEstimator."
            )
        changed = [
            key
            for key in made_with.keys() & self.made_with.keys()
            if made_with[key] != self.made_with[key] and key not in differing
        ]
        if changed:
            changed = (
                f"{k} ({made_with[k]!r} there, {self.made_with[k]!r} here)"
                for k in sorted(changed)
            )
            message += f" It was made with other {', '.join(changed)}."
        return message


def _as_read(content):
    """Return the content as JSON gives it back; NumPy's numbers as plain ones."""
    return json.loads(json.dumps(content, default=lambda value: value.item()))


def refuse_other_files(folder, name, unless):
    """Raise a ValueError if a folder that should be empty or new is not.

    Parameters
    ----------
    folder : Path
    name : str
        The folder as the user gave it, for messages.
    unless : callable
        Says whether the files may be there after all. It is asked last: another process may be
        making them right now.
    """
    files = sorted(p.name for p in folder.iterdir()) if folder.exists() else []
    files = [file for file in files if not is_clutter(file)]
    if files and not unless():
        raise ValueError(
            f"{name} must be an empty or a new folder, or one in which this work was begun. It "
            f"holds other files: {shortened(files)}."
        )


def is_begun(folder):
    """Whether some store has begun to write into the folder."""
    return (folder / "manifest.json").exists() or any(folder.glob(f"{CHECKSUMS}*"))


def _told(key, there, here):
    values = [repr(content.get(key)) for content in (there, here)]
    short = max(map(len, values)) < 34  # a hash tells nothing
    return f"{key} ({values[0]} there, {values[1]} here)" if short else key


def read_content(folder):
    """Read what decides the content of a folder, as its manifest says.

    Raises
    ------
    ValueError
        If there is no manifest, or it cannot be read.
    """
    path = folder / "manifest.json"
    try:
        content = json.loads(path.read_bytes())["content"]
        if content.pop("format") != FORMAT:
            raise ValueError("the format is another one")
    except FileNotFoundError as error:
        raise ValueError(f"'{folder}' is no store: it has no manifest.json.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"'{path}' is damaged, or was not written by this version of advfeat ({error})."
        ) from error
    return content
