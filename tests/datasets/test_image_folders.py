"""Image folders as people have them: links, clutter, odd files; decoded once into a memory map."""

import os
import struct

import numpy as np
import pytest
from image_files import save
from numpy.testing import assert_array_equal
from PIL import Image

from advfeat.datasets import _image_files, load_image_folder


@pytest.fixture
def folder(tmp_path):
    """Classes of 2 and 3 images; the grey value of an image is its number."""
    root = tmp_path / "images"
    for number, name in enumerate(["ant/0", "ant/1", "bee/0", "bee/1", "bee/2"]):
        save(root / f"{name}.png", (number, number, number))
    return root


def numbers(root, **options):
    X, y = load_image_folder(root, return_X_y=True, **options)
    return X[:, 0, 0, 0].tolist(), y.tolist()


EXPECTED = ([0, 1, 2, 3, 4], [0, 0, 1, 1, 1])

# --- what is in the folders ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["__MACOSX", ".ipynb_checkpoints", "@eaDir", "#recycle", "lost+found", ".Trash-0"]
)
def test_clutter_is_no_class_and_holds_no_images(folder, name):
    for place in (folder, folder / "ant"):
        save(place / name / "thumb.png", 200)
        save(place / name / "deeper" / "thumb.png", 200)
    (folder / "ant" / "Thumbs.db").write_bytes(b"no image")
    save(folder / "ant" / "._0.png", 200)
    assert numbers(folder) == EXPECTED


def test_a_loop_of_links_is_read_once(folder):
    (folder / "ant" / "again").symlink_to(folder / "ant")
    (folder / "bee" / "deep").mkdir()
    (folder / "bee" / "deep" / "up").symlink_to("..")
    assert numbers(folder) == EXPECTED


def test_links_to_images_elsewhere_are_followed(folder, tmp_path):
    save(tmp_path / "more" / "9.png", (5, 5, 5))
    (folder / "bee" / "more").symlink_to(tmp_path / "more")
    assert numbers(folder) == ([*range(6)], [0, 0, 1, 1, 1, 1])
    moved = tmp_path / "disk2"
    (folder / "ant").rename(moved)
    (folder / "ant").symlink_to(moved)
    assert numbers(folder)[1] == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("target", ["..", "../..", "../bee", "/"])
def test_links_to_other_classes_are_refused(folder, target):
    (folder / "ant" / "link").symlink_to(target)
    with pytest.raises(ValueError, match="ant/link' is a link to .* would count as 'ant'"):
        load_image_folder(folder)


def test_two_names_of_one_class_folder_are_refused(folder):
    (folder / "cow").symlink_to("ant")
    with pytest.raises(ValueError, match="'ant' and 'cow' .* are one and the same"):
        load_image_folder(folder)


@pytest.mark.parametrize(
    "links",
    [
        {"ant/2.png": "pool/7.png", "bee/9.png": "pool/7.png"},
        {"ant/pool": "pool", "bee/pool": "pool"},
        {"bee/9.png": "images/ant/0.png"},
    ],
)
def test_one_image_in_two_classes_is_refused(folder, tmp_path, links):
    save(tmp_path / "pool" / "7.png")
    for name, target in links.items():
        (folder / name).symlink_to(tmp_path / target)
    with pytest.raises(ValueError, match="ant/.*png' and '.*bee/.*png' are one and the same file"):
        load_image_folder(folder)


def test_links_into_one_pool_are_fine_with_an_image_for_each(folder, tmp_path):
    for name, number in (("ant", 5), ("bee", 6)):
        save(tmp_path / "pool" / f"{number}.png", (number,) * 3)
        (folder / name / "9.png").symlink_to(tmp_path / "pool" / f"{number}.png")
    assert numbers(folder) == ([0, 1, 5, 2, 3, 4, 6], [0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("name", ["cow", "bee/more"])
def test_a_folder_whose_link_leads_nowhere_is_not_passed_over(folder, tmp_path, name):
    (folder / name).symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match=f"{name}' is a link to '.*gone', which is not there"):
        load_image_folder(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_named_pipe_does_not_hang(folder):
    os.mkfifo(folder / "ant" / "pipe.png")
    with pytest.raises(ValueError, match="ant/pipe.png' has the name of an image, but is no file"):
        load_image_folder(folder)


def test_many_empty_class_folders_give_a_short_message(folder):
    for i in range(300):
        (folder / f"class{i:03}").mkdir()
    with pytest.raises(FileNotFoundError, match="found none in 300 of 302: class000") as error:
        load_image_folder(folder)
    assert len(str(error.value)) < 500
    for split in ("train", "test"):
        (folder / "splits" / split).mkdir(parents=True)
    for i in range(300):
        (folder / "splits" / "train" / f"class{i:03}").mkdir()
        (folder / "splits" / "test" / f"other{i:03}").mkdir()
    with pytest.raises(ValueError, match="only one of them has: class000") as error:
        load_image_folder(folder / "splits", split="train")
    assert len(str(error.value)) < 500


def test_names_that_are_no_utf8(folder):
    try:
        os.mkdir(os.fsencode(folder) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    with pytest.raises(ValueError, match=r"'caf\\\\udce9' .* is not UTF-8"):
        load_image_folder(folder)
    os.rmdir(os.fsencode(folder) + b"/caf\xe9")
    bad = os.fsencode(folder) + b"/ant/\xe9.png"
    save(folder / "ant" / "2.png", (7, 7, 7))
    os.rename(folder / "ant" / "2.png", bad)
    assert sorted(numbers(folder)[0]) == [0, 1, 2, 3, 4, 7]  # the name does no harm
    with open(bad, "wb") as file:
        file.write(b"no image")
    with pytest.raises(ValueError, match=r"udce9.png") as error:
        load_image_folder(folder)
    str(error.value).encode()  # can be printed


# --- what is in the files -----------------------------------------------------------------------


def test_only_image_formats_are_tried(folder, monkeypatch):
    def called(*args, **kwargs):
        pytest.fail("Ghostscript was called")

    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", called)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    (folder / "ant" / "0.png").write_bytes(eps)
    with pytest.raises(ValueError, match="readable 8-bit image in '.*ant/0.png'"):
        load_image_folder(folder)


def test_huge_images_are_refused_before_they_are_decoded(folder, monkeypatch):
    save(folder / "ant" / "2.png", 0, size=(300, 200))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ValueError, match=r"2.png': 300 x 200 pixels; raise max_pixels \(now 5,"):
        _image_files.decode(str(folder / "ant" / "2.png"), max_pixels=5000)
    monkeypatch.undo()
    save(folder / "ant" / "2.png", 0, size=(8_000, 8_000), mode="1")
    with pytest.raises(ValueError, match="2.png'"):
        load_image_folder(folder, size=4)
    with pytest.raises(ValueError, match="'max_pixels' parameter"):
        load_image_folder(folder, max_pixels=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_cameras_is_applied(tmp_path, orientation):
    upright = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    undo = {  # how a camera that was held like that has stored the picture
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, -1),
    }  # fmt: skip
    image = Image.fromarray(np.ascontiguousarray(undo[orientation](upright)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.png", exif=exif)
    X, _ = load_image_folder(tmp_path, return_X_y=True)
    assert_array_equal(X[0], upright.transpose(2, 0, 1))


TURNED = struct.pack("<4sIH2HIIHHI4sI", b"II*", 8, 2, 0x112, 3, 1, 6, 0x100, 2, 4, b"abc", 0)


@pytest.mark.parametrize("exif", [b"no header", b"II*\0", b"II*\0\x08\0\0\0\x02\0", TURNED])
@pytest.mark.parametrize("name", ["0.png", "0.jpg"])
def test_images_with_broken_exif_data_are_turned_only_if_these_say_how(tmp_path, name, exif):
    exif, shape = b"Exif\0\0" + exif, (5, 3) if exif is TURNED else (3, 5)
    save(tmp_path / "a" / name, (40, 40, 40), size=(5, 3), exif=exif, dpi=(72, 72))
    X = load_image_folder(tmp_path).data
    assert X.shape == (1, 3, *shape) and np.ptp(X) == 0 and abs(int(X[0, 0, 0, 0]) - 40) < 3


def test_transparent_pixels_are_laid_on_white(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "palette.png", transparency=1)
    save(tmp_path / "a" / "red.png", (255, 0, 0), transparency=(255, 0, 0))
    X, _ = load_image_folder(tmp_path, return_X_y=True)
    assert (X == 255).all()


def deep_png(path):
    """A PNG with 16 bits per channel, which Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    pixels = zlib.compress(4 * (b"\0" + 12 * b"\x12\x34"))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def deep_ppm(path):
    path.write_bytes(b"P6 4 4 65535\n" + 48 * b"\x12\x34")


@pytest.mark.parametrize(("write", "name"), [(deep_png, "0.png"), (deep_ppm, "0.ppm")])
def test_16_bits_per_channel_are_not_cut_in_silence(tmp_path, write, name):
    (tmp_path / "a").mkdir()
    write(tmp_path / "a" / name)
    with Image.open(tmp_path / "a" / name) as image:
        assert image.mode == "RGB"  # Pillow says nothing
    with pytest.raises(ValueError, match="more than 8 bits per channel; convert the file"):
        load_image_folder(tmp_path)


def test_bitmaps_of_16_bits_a_pixel_are_read(tmp_path):
    (tmp_path / "a").mkdir()
    head = struct.pack("<IiiHHIIiiII", 40, 4, 4, 1, 16, 0, 32, 0, 0, 0, 0)
    start = b"BM" + struct.pack("<IHHI", 86, 0, 0, 54)
    (tmp_path / "a" / "0.bmp").write_bytes(start + head + 16 * b"\x1f\x00")
    blue = load_image_folder(tmp_path).data[0]
    assert (blue[2] > 240).all() and (blue[:2] == 0).all()


@pytest.mark.parametrize("files", [["test/0.png"], ["val/"], ["test/0.png", "val/.hidden/"]])
def test_splits_without_class_folders_have_no_numbers(tmp_path, files):
    for name in ("train/a/0.png", "train/b/0.png", *files):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else save(path, (1, 2, 3))
    assert len(load_image_folder(tmp_path, split="train").data) == 2
    with pytest.raises(FileNotFoundError, match="one folder per class"):
        load_image_folder(tmp_path, split=files[0].split("/")[0])


def test_a_split_that_is_not_read_may_have_links_that_lead_nowhere(tmp_path):
    for name in ("train/ant/0.png", "train/bee/1.png", "val/ant/2.png", "val/bee/3.png"):
        save(tmp_path / name, (9, 9, 9))
    (tmp_path / "test").mkdir()
    for link in ("val/notes", "test/0001.png"):
        (tmp_path / link).symlink_to(tmp_path / "gone")
    assert len(load_image_folder(tmp_path, split="train").data) == 2
    with pytest.raises(ValueError, match="val/notes.*gone"):
        load_image_folder(tmp_path, split="val")


def test_gifs_are_images(tmp_path):
    for i, name in enumerate(["ant/0.png", "ant/1.gif", "bee/2.GIF", "bee/3.jpg"]):
        save(tmp_path / name, (60 * i,) * 3)
    assert numbers(tmp_path)[0] == [0, 60, 120, 180]


@pytest.mark.parametrize("names", [("Train", "Test"), ("train", "valid", "test"), ("dev", "eval")])
def test_splits_are_not_taken_for_classes(names, tmp_path):
    for split in names:
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (4, 4)).save(tmp_path / split / name / "0.png")
    with pytest.raises(ValueError, match="look like splits. Pass split="):
        load_image_folder(tmp_path)
    for split in names:
        assert load_image_folder(tmp_path, split=split).target_names.tolist() == ["cat", "dog"]
    (tmp_path / names[-1] / "cow").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / names[-1] / "cow" / "0.png")
    with pytest.raises(ValueError, match="Expected the same classes in .*cow"):
        load_image_folder(tmp_path, split=names[0])


@pytest.mark.parametrize("kept", [False, True])
def test_all_broken_files_are_named_together(kept, tmp_path):
    (tmp_path / "x" / "a").mkdir(parents=True)
    for i in range(200):
        Image.new("RGB", (4, 4)).save(tmp_path / "x" / "a" / f"{i:03}.png")
    for i in (70, 130, 199):
        (tmp_path / "x" / "a" / f"{i:03}.png").write_bytes(b"no image")
    as_memmap = tmp_path / "map" if kept else None
    with pytest.raises(ValueError, match=r"070.png.* cannot be read either: .*130.png, .*199.png"):
        load_image_folder(tmp_path / "x", as_memmap=as_memmap, n_jobs=2)


def planar_tiff(bits, kind):
    """An uncompressed 8x8 TIFF with one strip for each channel."""
    width, size = 8, 64 * bits // 8
    n, where = 3, 8 + 2 + 12 * 11 + 4
    arrays = struct.pack("<3H", *[bits] * n) + struct.pack("<3H", *[kind] * n)
    strips = where + len(arrays) + 24
    arrays += struct.pack("<3I", *(strips + i * size for i in range(n)))
    arrays += struct.pack("<3I", *[size] * n)
    tags = [
        (256, 3, 1, width), (257, 3, 1, width), (258, 3, n, where), (259, 3, 1, 1),
        (262, 3, 1, 2), (273, 4, n, where + 12), (277, 3, 1, n), (278, 3, 1, width),
        (279, 4, n, where + 24), (284, 3, 1, 2), (339, 3, n, where + 6),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    header = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + struct.pack("<I", 0)
    return header + arrays + bytes(range(256)) * (n * size // 256 + 1)


@pytest.mark.parametrize(("bits", "kind"), [(8, 1), (16, 1), (8, 2)])
def test_planar_tiffs_are_read_or_refused(tmp_path, bits, kind):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "0.tif").write_bytes(planar_tiff(bits, kind))
    if (bits, kind) == (8, 1):
        X, _ = load_image_folder(tmp_path, return_X_y=True)
        assert_array_equal(X[0].ravel(), np.arange(192))
    else:
        with pytest.raises(ValueError, match="more than 8 bits per channel|signed|readable 8-bit"):
            load_image_folder(tmp_path)


def test_links_to_images_that_are_not_there_are_named(folder):
    (folder / "ant" / "9.png").symlink_to(folder / "gone.png")
    with pytest.raises(ValueError, match=r"9.png' is a link to .*gone.png', which is not there"):
        load_image_folder(folder)


def test_a_map_that_could_not_be_made_says_what_stays(folder, tmp_path):
    save(folder / "ant" / "9.png", 0, size=(9, 9))
    settings = {"as_memmap": tmp_path / "map", "verbose": 0}
    with pytest.raises(ValueError, match="Pass size=.* if they change, delete it"):
        load_image_folder(folder, **settings)


def test_all_formats_of_torchvision_are_read():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    from advfeat.datasets._class_folders import EXTENSIONS

    assert set(EXTENSIONS) == {*IMG_EXTENSIONS, ".gif"}
