"""Fingerprints of data speak of values, not of how they lie in memory."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from advfeat.utils._fingerprint import BLOCK, fingerprint

X = np.random.default_rng(0).integers(0, 256, (3 * BLOCK + 7, 3, 4, 5)).astype(np.float32)


def test_memory_layout_does_not_count(tmp_path):
    np.save(tmp_path / "x.npy", X)
    same = [
        np.asfortranarray(X),
        np.repeat(X, 2, axis=0)[::2],
        X[:, ::-1].copy()[:, ::-1],
        X.astype(">f4"),
        np.load(tmp_path / "x.npy", mmap_mode="r"),
    ]
    assert {fingerprint(other) for other in same} == {fingerprint(X)}


@given(st.integers(0, len(X) - 1), st.integers(0, 59))
def test_every_value_counts(row, at):
    changed = X.copy()
    changed[row].flat[at] += 1
    assert fingerprint(changed) != fingerprint(X)


def test_order_dtype_and_shape_count():
    prints = {
        fingerprint(other)
        for other in (X, X[::-1], X[:-1], X.astype(np.uint8), X.reshape(len(X), 4, 3, 5))
    }
    assert len(prints) == 5


def test_the_same_bytes_of_another_type_are_other_values():
    bytes_ = np.ones(4, np.uint8)
    same = [bytes_.view(kind) for kind in (np.uint8, np.int8, np.bool_)]
    assert len({fingerprint(values) for values in same}) == 3
    words = np.zeros(4, np.int32)
    same = [words.view(kind) for kind in (np.int32, np.uint32, np.float32)]
    assert len({fingerprint(values) for values in same}) == 3
    assert len({fingerprint(values[0]) for values in same}) == 3  # without an axis, too


def test_labels_of_any_kind():
    text = ["a", "bb", "a"]
    assert fingerprint(np.array(text)) == fingerprint(np.array(text, dtype=object))
    assert fingerprint(np.array(text)) != fingerprint(np.array(["a", "b", "ba"]))
    assert fingerprint(np.array([1, 2])) != fingerprint(np.array([1.0, 2.0]))


def test_reads_block_by_block():
    class Rows:
        shape, dtype, ndim = X.shape, X.dtype, X.ndim
        most = 0

        def __len__(self):
            return len(X)

        def __getitem__(self, rows):
            found = X[rows]
            self.most = max(self.most, len(found))
            return found

        def __array__(self, *args):
            pytest.fail("read whole")

    rows = Rows()
    assert fingerprint(rows) == fingerprint(X) and rows.most == BLOCK
