"""benchmarks/jpeg_folder.py: what it writes is what reproduce.py reads."""

import numpy as np
from sklearn.utils import Bunch

import jpeg_folder
from advfeat.datasets import load_image_folder


def test_the_folders_hold_the_images_in_order(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(0)
    names = np.array(["cat", "dog", "frog"])

    def fetch(source, split, download):
        assert download
        n = {"train": 12, "test": 6}[split]
        smooth = rng.integers(40, 215, (n, 3, 1, 1)) + rng.integers(-3, 3, (n, 3, 32, 32))
        found[split] = Bunch(
            data=smooth.astype(np.uint8), target=np.arange(n) % 3, target_names=names
        )
        return found[split]

    found = {}
    monkeypatch.setattr(jpeg_folder, "fetch_cifar10", fetch)
    jpeg_folder.main([str(tmp_path / "cifar10"), str(tmp_path / "jpeg")])
    assert "12 images written" in capsys.readouterr().out
    for split, expected in found.items():
        read = load_image_folder(tmp_path / "jpeg", split=split)
        order = np.argsort(expected.target, kind="stable")
        assert np.array_equal(read.target, expected.target[order])
        assert list(read.target_names) == list(names)
        gap = np.abs(read.data.astype(float) - expected.data[order])
        assert gap.mean() < 8  # the mean colour of an image is kept
    first = tmp_path / "jpeg" / "train" / "dog" / "0000.jpg"
    assert first.exists() and not (tmp_path / "jpeg" / "train" / "dog" / "0004.jpg").exists()
