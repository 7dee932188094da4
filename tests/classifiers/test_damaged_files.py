"""Files of classifiers that are not what they should be."""

import os
import warnings

import numpy as np
import pytest
import torch
from persistence_cases import Own, edit
from safetensors.torch import save_file

from advfeat import (
    load,
)


def damaged(kept, content):
    kept.write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ValueError) as caught:
        warnings.simplefilter("ignore")
        load(kept)
    message = str(caught.value)
    assert str(kept) in message
    assert "\n" not in message
    return message


def test_damaged_files(kept):
    whole = kept.read_bytes()
    for length in (0, 3, 8, 100, 5000, len(whole) // 2, len(whole) - 1):
        assert "damaged" in damaged(kept, whole[:length])
    for content in (whole + b"0", b"\x80\x05K\x01.", b"hello" * 100, os.urandom(999)):
        assert "damaged" in damaged(kept, content)
    for place in np.linspace(len(whole) // 3, len(whole) - 1, 9).astype(int):
        flipped = bytearray(whole)
        flipped[place] ^= 1
        assert "damaged" in damaged(kept, bytes(flipped))


def test_a_header_changed_by_hand(kept):
    edit(kept, lambda header: header["params"].update(lr=0.2), keep_checksum=True)
    with pytest.raises(ValueError, match="is damaged: its content does not have the checksum"):
        load(kept)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.update({"class": "LogisticRegression"}),
        lambda h: h.update({"class": ["StandardClassifier"]}),
        lambda h: h.pop("params"),
        lambda h: h["params"].update(unknown=1),
        lambda h: h["params"].update(lr="fast"),
        lambda h: h["params"].update(network="no such network"),
        lambda h: h["params"].update(network="mlp"),
        lambda h: h["params"].update(bounds={"code": "import os"}),
        lambda h: h.update(input_shape_=[1, 9]),
        lambda h: h.update(input_shape_="big"),
        lambda h: h.update(history=3),
        lambda h: h["classes_"].update(values=[1, 2, 3]),
        lambda h: h["classes_"].update(dtype="no such dtype"),
        lambda h: h["classes_"].update(dtype="object", values=[{"dict": []}] * 10),
        lambda h: h.update(seed=None),
        lambda h: h.pop("dropped"),
    ],
)
def test_headers_of_others(kept, change):
    """With a checksum that fits: an error that names the file, and nothing else."""
    edit(kept, change)
    with pytest.raises(ValueError) as caught:
        load(kept)
    assert str(kept) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_newer_and_foreign_files(kept, tmp_path):
    edit(kept, lambda header: header.update(format=99, advfeat="7.0"))
    with pytest.raises(ValueError, match="written by advfeat 7.0 in format 99.*reads formats up"):
        load(kept)
    other = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="weights.safetensors.*not of advfeat.save"):
        load(other)
    torch.save({"weight": torch.zeros(3)}, other)
    with pytest.raises(ValueError, match="weights.safetensors' is damaged, or no file of"):
        load(other)
    for missing in (tmp_path / "none", tmp_path):
        with pytest.raises(FileNotFoundError, match="Expected a file of advfeat.save"):
            load(missing)


def test_a_network_for_a_file_that_names_its_own(kept):
    with pytest.raises(ValueError, match="names its network, so 'network' must be left out"):
        load(kept, network=Own)
