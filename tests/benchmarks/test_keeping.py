"""Values of stages in files without pickles: the same bits, or an error."""

import json
import zipfile

import numpy as np
import pytest
from torch import nn

import keeping
from advfeat import AdversarialClassifier, ConstructedDataset, StandardClassifier, load
from architectures import small_vgg
from making import TestAccuracy

ARRAYS = [
    np.array([0.1, np.nan, -np.inf, -0.0], np.float32),
    np.array([], np.int64),
    np.array(1.5),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(5, dtype=np.uint8)[::2],
    np.array(["a", "bär"]),
    np.array([True, False]),
]


def again(value, folder, **options):
    path = folder / "value.npz"
    keeping.keep(path, value)
    return keeping.kept(path, **options)


def bits(value):
    """What makes a value what it is."""
    if isinstance(value, np.ndarray | np.generic):
        return type(value), value.dtype, value.shape, np.asarray(value).tobytes()
    if isinstance(value, float):
        return float, repr(value)
    if isinstance(value, dict):
        return dict, [(bits(key), bits(item)) for key, item in value.items()]
    if isinstance(value, list | tuple):
        return type(value), [bits(item) for item in value]
    return type(value), value


@pytest.mark.parametrize(
    "value",
    [
        *(1, True, None, "größer", 0.1, 1e-320, float("nan"), float("-inf"), 2**70),
        *(np.float64(0.1), np.float32(0.1), np.int64(3), np.str_("a"), np.bool_(True)),
        *ARRAYS,
        {0.0: 0.5, 0.25: (1, [2, {"a": None}]), 3: "b", "3": ARRAYS, (1, 2): []},
        {"array": 1, "list": [1]},
    ],
    ids=lambda value: f"{type(value).__name__} {value!r:.20}",
)
def test_values_come_back_to_the_bit(value, tmp_path):
    assert bits(again(value, tmp_path)) == bits(value)


def test_constructed_sets_come_back_whole(tmp_path):
    X = np.random.default_rng(0).random((3, 1, 2, 2)).astype(np.float16)
    data = ConstructedDataset(X, ["b", "a", "b"], ["a", "a", "b"], ["a", "b", "c"])
    found = again({"set": data, "success rate": 0.5}, tmp_path)
    assert type(found["set"]) is ConstructedDataset and found["success rate"] == 0.5
    for name in ("X", "y", "y_source", "classes"):
        assert bits(getattr(found["set"], name)) == bits(getattr(data, name))
    assert found["set"].feature_names is None


def test_arrays_are_not_compressed_and_nothing_is_a_pickle(tmp_path):
    keeping.keep(tmp_path / "value.npz", {"set": np.zeros((100, 100), np.float32)})
    with zipfile.ZipFile(tmp_path / "value.npz") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.read("value.json"))
    with np.load(tmp_path / "value.npz", allow_pickle=False) as archive:
        assert archive["0"].shape == (100, 100)


@pytest.mark.parametrize("value", [{1, 2}, [object()], np.array([object()]), lambda: 1])
def test_what_has_no_form_without_a_pickle_is_refused(value, tmp_path):
    with pytest.raises((TypeError, ValueError)):
        keeping.keep(tmp_path / "value.npz", value)
    assert list(tmp_path.iterdir()) == []


def test_a_single_wrong_bit_is_found(tmp_path):
    path = tmp_path / "value.npz"
    keeping.keep(path, np.zeros(1000))
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"\x93NUMPY") + 500] ^= 1
    path.write_bytes(whole)
    with pytest.raises(zipfile.BadZipFile):
        keeping.kept(path)


def test_a_wrong_bit_that_hides_values_is_found(tmp_path):
    """NumPy compares the checksum of what it reads to the end: of no values it reads none."""
    path = tmp_path / "value.npz"
    keeping.keep(path, np.zeros(1000))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(1000,)", b"(0000,)"))
    assert path.read_bytes() != whole
    with pytest.raises(zipfile.BadZipFile, match="does not have its checksum"):
        keeping.kept(path)


def test_pages_note_values_that_are_whole_and_have_no_arrays(tmp_path, capsys):
    path = tmp_path / "value.npz"
    value = {0.25: (1, [2, {"a": None}]), "b": 0.5}
    keeping.keep(path, value)
    noted = json.loads(json.dumps(keeping.plain_value(path)))
    assert bits(keeping.of_plain(noted["value"])) == bits(value)
    keeping.keep(path, {**value, "array": np.zeros(2)})
    assert keeping.plain_value(path) == {} and not capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-9])
    assert keeping.plain_value(path) == {}
    assert "stage file value.npz is damaged" in capsys.readouterr().out
    (tmp_path / "network.safetensors").touch()
    assert keeping.plain_value(tmp_path / "network.npz") == {}
    assert keeping.plain_value(tmp_path / "missing.npz") == {}


def linear(input_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), n_classes))


@pytest.mark.parametrize("network", ["small_cnn", small_vgg, linear])
def test_classifiers_are_kept_as_the_library_does(network, tmp_path, digits):
    X, y, X_test, y_test = (part[:200] for part in digits)
    follow = TestAccuracy(X_test, y_test, range(10))
    clf = StandardClassifier(network, max_epochs=2, callbacks=[follow], random_state=0).fit(X, y)
    own = None if isinstance(network, str) else network
    found = again(clf, tmp_path, network=network)
    assert [path.name for path in tmp_path.iterdir()] == ["value.safetensors"]
    with pytest.warns(UserWarning, match="Not kept in the file: callbacks"):
        load(tmp_path / "value.safetensors", network=own)
    for method in ("decision_function", "features"):
        expected = getattr(clf, method)(X_test)
        assert getattr(found, method)(X_test).tobytes() == expected.tobytes()
    for name in ("test_accuracy", "dur", "train_loss"):  # Figure 10 and the time of training
        assert [row[name] for row in found.history_] == [row[name] for row in clf.history_]
    assert found.get_params()["max_epochs"] == 2 and found.net_.module_ is found.module_


def test_adversarial_classifiers_too(tmp_path, digits):
    X, y = digits[0][:100], digits[1][:100]
    clf = AdversarialClassifier(eps=0.5, n_steps=2, max_epochs=1, random_state=0).fit(X, y)
    found = again(clf, tmp_path)
    assert type(found) is AdversarialClassifier and found.eps == 0.5
    assert found.decision_function(X).tobytes() == clf.decision_function(X).tobytes()
