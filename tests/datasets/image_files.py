"""Image files for the tests of this folder."""

from PIL import Image


def save(path, value=0, size=(4, 4), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
