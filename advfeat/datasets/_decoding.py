"""From one image file to an RGB array."""

import re

import numpy as np
from PIL import ExifTags, Image, ImageOps

from advfeat.utils._files import printable

MAX_PIXELS = 50_000_000  # more than cameras make; 150 MB when decoded
# What Pillow may try, whatever the name says: for EPS files it would start Ghostscript.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_BITS, _KIND = 258, 339  # tags of TIFF: bits per sample, and whether they are unsigned
_UPRIGHT = {  # by what cameras note
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(path, size=None, max_pixels=MAX_PIXELS):
    """Read one image file as an RGB array of shape (3, H, W), uint8.

    The rotation that cameras note in EXIF is applied, if it can be read; transparent pixels are
    laid on white.

    Parameters
    ----------
    path : str
    size : int or None
        If given, the shorter side is resized to ``size`` pixels (bilinear, antialiased) and the
        centre cropped, in one resampling step.
    max_pixels : int
        Larger images are refused before they are decoded.

    Raises
    ------
    ValueError
        If the file is not an image, is damaged, too large, has signed pixels, or more than 8
        bits per channel.
    """
    with open(path, "rb") as file:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise ValueError(
                        f"{image.width} x {image.height} pixels; raise max_pixels (now "
                        f"{max_pixels:,}) if it is no mistake"
                    )
                if image.mode.startswith(("I", "F")) or _has_more_than_8_bits(image):
                    raise ValueError(
                        f"pixels of mode {image.mode!r} with more than 8 bits per channel; "
                        "convert the file to 8 bits"
                    )
                if image.format == "TIFF" and np.any(np.array(image.tag_v2.get(_KIND, 1)) != 1):
                    raise ValueError("pixels that are signed; convert the file to unsigned ones")
                image.load()
                image = _on_white(_turned(image))
        except MemoryError:
            raise
        except Exception as error:  # what damaged bytes make of Pillow is of any kind
            raise ValueError(
                f"Expected a readable 8-bit image in '{printable(path)}': {error}."
            ) from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    return np.array(image).transpose(2, 0, 1).copy()


def _has_more_than_8_bits(image):
    """Whether Pillow would cut the channels down, as it does in silence.

    "BGR;15" are bits of a pixel, not of a channel.
    """
    if image.format == "TIFF" and np.max(image.tag_v2.get(_BITS, 1)) > 8:
        return True
    settings = " ".join(str(tile[3]) for tile in getattr(image, "tile", []))
    return any(int(number) > 8 for number in re.findall(r"(?<!BGR);(\d+)", settings)) or (
        image.format == "PPM" and any(int(n) > 255 for n in re.findall(r"\d+", settings))
    )


def _turned(image):
    """Turn an image upright.

    Pillow's own `exif_transpose` fails where other entries of EXIF are broken, as they often are.
    """
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # Pillow's reader raises whatever comes, struct.error and KeyError too
        return image
    return image if method is None else image.transpose(method)


def _on_white(image):
    """Turn any image into RGB."""
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")
