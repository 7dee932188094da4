"""The check of y: what counts as labels, whatever holds them."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.exceptions import DataConversionWarning

from advfeat.utils._labels import check_labels, encode_labels

polars = pytest.importorskip("polars")
NUMBERS, TEXT = [0, 1, 0, 2], ["a", "b", "a", "c"]

SAME = {
    "list": (NUMBERS, NUMBERS),
    "tuple": (tuple(TEXT), TEXT),
    "range": (range(4), [0, 1, 2, 3]),
    "int8": (np.array(NUMBERS, np.int8), NUMBERS),
    "floats that are whole": (np.array(NUMBERS, float), NUMBERS),
    "objects": (np.array(TEXT, object), TEXT),
    "objects that are numbers": (np.array(NUMBERS, object), NUMBERS),
    "booleans": ([True, False, True, True], [True, False, True, True]),
    "tensor": (torch.tensor(NUMBERS), NUMBERS),
    "tensor with a gradient": (torch.tensor(NUMBERS, dtype=float, requires_grad=True), NUMBERS),
    "bfloat16": (torch.tensor(NUMBERS).bfloat16(), NUMBERS),
    "tensors": ([torch.tensor(i) for i in NUMBERS], NUMBERS),
    "Series": (pd.Series(TEXT, index=[5, 6, 7, 8]), TEXT),
    "nullable": (pd.Series(NUMBERS, dtype="Int64"), NUMBERS),
    "string": (pd.Series(TEXT, dtype="string"), TEXT),
    "categorical": (pd.Series(TEXT, dtype="category"), TEXT),
    "polars": (polars.Series(TEXT), TEXT),
    "polars categorical": (polars.Series(TEXT, dtype=polars.Categorical), TEXT),
}


@pytest.mark.parametrize("name", SAME)
def test_labels_are_the_same_whatever_holds_them(name):
    y, expected = SAME[name]
    labels = check_labels(y, 4)
    assert isinstance(labels, np.ndarray) and labels.shape == (4,)
    assert labels.tolist() == expected


COLUMNS = [
    np.array(NUMBERS)[:, None],
    torch.tensor(NUMBERS)[:, None],
    pd.DataFrame({"y": NUMBERS}),
    polars.DataFrame({"y": NUMBERS}),
]


@pytest.mark.parametrize("y", COLUMNS, ids=lambda y: type(y).__module__)
def test_a_column_is_taken_with_scikit_learns_warning(y):
    with pytest.warns(DataConversionWarning, match="column-vector y"):
        assert check_labels(y, 4).tolist() == NUMBERS


REFUSED = {
    "one-hot": (np.eye(4), "one-hot labels: use y.argmax"),
    "one-hot tensor": (torch.eye(4), "one-hot labels: use y.argmax"),
    "multilabel": ([[1, 1], [0, 1], [1, 0], [0, 0]], "Several labels for one sample"),
    "three axes": (np.zeros((4, 1, 1)), r"one label per sample. Got \(4, 1, 1\)"),
    "too short": (NUMBERS[:3], r"must have shape \(4,\), one label per sample. Got \(3,\)"),
    "one number": (3, "Got int instead"),
    "a string": ("abca", "Got str instead"),
    "a dict": ({0: 1}, "Got dict instead"),
    "a generator": ((i for i in NUMBERS), "Got generator instead"),
    "None": (None, "Got NoneType instead"),
    "ragged": ([[0], [1, 2], [0], [1]], "must be an array or a list of labels"),
    "continuous": ([0.5, 1.2, 3.4, 4.1], "Unknown label type: continuous"),
    "NaN": ([0, np.nan, 1, 0], "NaN"),
    "infinity": ([0, np.inf, 1, 0], "infinity"),
    "NaN beside text": (["a", np.nan, "b", "a"], "none may be missing. Got a y of float, str"),
    "None beside text": (np.array(["a", None, "b", "a"], object), "NoneType, str"),
    "None beside numbers": ([0, None, 1, 0], "NoneType, int"),
    "numbers beside text": (["a", 1, "b", 1], "Got a y of int, str"),
    "missing in a Series": (pd.Series(TEXT).where([True] * 3 + [False]), "none may be missing"),
    "missing in a nullable": (pd.Series([0, None, 1, 0], dtype="Int64"), "NA|NaN"),
    "missing in polars": (polars.Series([0, None, 1, 0]), "NaN"),
    "bytes": ([b"a", b"b", b"a", b"b"], "Use text"),
    "complex": ([1j, 0, 1, 0], "complex"),
    "sets": ([{1}, {2}, {1}, {2}], "Got a y of set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_list_of_labels_is_refused_in_one_line(name):
    y, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as caught:
        check_labels(y, 4)
    assert "\n" not in str(caught.value)


@given(st.lists(st.sampled_from("bdfh"), min_size=1))
def test_positions(y):
    classes = np.array(list("bdfh"))
    assert_array_equal(classes[encode_labels(y, classes, len(y))], y)
    known = np.array(list("bf"))
    index = encode_labels(y, known, len(y), unknown="mark")
    assert_array_equal(index == -1, ~np.isin(y, known))
    assert_array_equal(known[index[index >= 0]], np.array(y)[np.isin(y, known)])


def test_labels_of_another_type_are_a_mistake_not_an_unknown_label():
    for classes, y in (([0, 1], TEXT), (TEXT[:2], NUMBERS)):
        for unknown in ("refuse", "mark"):
            with pytest.raises(ValueError, match="Got labels of another type"):
                encode_labels(y, np.array(classes), 4, unknown=unknown)
    assert_array_equal(encode_labels([True, False], np.array([0, 1]), 2), [1, 0])
    assert_array_equal(encode_labels([1.0, 0.0], np.array([0, 1]), 2), [1, 0])


def test_unknown_labels_are_refused_unless_they_are_to_be_marked():
    with pytest.raises(ValueError, match=r"not among the classes \[0 1\]: \[2\]"):
        encode_labels(NUMBERS, np.array([0, 1]), 4)
