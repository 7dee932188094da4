"""``net_.module_`` is the network as it predicts: exporting tools and gradients start from it."""

import pickle

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback

from advfeat import AdversarialClassifier, StandardClassifier


@pytest.fixture(scope="module")
def images():
    X = np.random.default_rng(0).random((60, 3, 8, 8), dtype=np.float32)
    return X, (X.mean((1, 2, 3)) > 0.5).astype(int)


class Fail(Callback):
    """Fail after the first batch."""

    def on_batch_end(self, net, **kwargs):
        raise RuntimeError("on purpose")


def fitted(make, images, **settings):
    clf = make("small_cnn", max_epochs=2, random_state=0, verbose=0, device="cpu", **settings)
    return clf.fit(*images)


@pytest.mark.parametrize("make", [StandardClassifier, AdversarialClassifier])
@pytest.mark.parametrize("then", ["nothing", "partial_fit", "failed", "pickle", "features"])
def test_the_module_predicts_as_the_classifier_does(images, make, then):
    X, y = images
    clf = fitted(make, images)
    if then == "partial_fit":
        clf.partial_fit(X, y)
    elif then == "failed":
        clf.set_params(callbacks=[Fail()])
        with pytest.raises(RuntimeError, match="on purpose"):
            clf.partial_fit(X, y)
    elif then == "pickle":
        clf = pickle.loads(pickle.dumps(clf))
    elif then == "features":
        clf.features(X)
    x = torch.from_numpy(X)
    with torch.no_grad():
        logits = [clf.net_.module_(x).numpy() for _ in range(3)]
    np.testing.assert_array_equal(logits[0], logits[1])
    np.testing.assert_array_equal(logits[0], logits[2])
    expected = clf.decision_function(X)
    np.testing.assert_allclose(logits[0][:, 1] - logits[0][:, 0], expected, atol=1e-5)


def test_torch_export(images):
    X = images[0]
    clf = fitted(StandardClassifier, images)
    x = torch.from_numpy(X)
    batch = torch.export.Dim("batch")
    program = torch.export.export(clf.net_.module_, (x[:4],), dynamic_shapes=({0: batch},))
    with torch.no_grad():
        np.testing.assert_allclose(program.module()(x), clf.net_.module_(x), atol=1e-5)


def test_onnx(images, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    clf = fitted(StandardClassifier, images)
    x = torch.from_numpy(images[0][:4])
    torch.onnx.export(clf.net_.module_, (x,), str(tmp_path / "net.onnx"))
    session = runtime.InferenceSession(str(tmp_path / "net.onnx"))
    (logits,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(logits, clf.net_.module_(x).detach(), atol=1e-4)


def test_integrated_gradients(images):
    """The completeness axiom of captum's method, by captum where it is installed."""
    clf = fitted(StandardClassifier, images)
    x = torch.from_numpy(images[0][:2])
    module = clf.net_.module_
    try:
        from captum.attr import IntegratedGradients

        parts = IntegratedGradients(module).attribute(x, target=1, n_steps=200)
    except ImportError:
        points = torch.linspace(0, 1, 201)[1:, None, None, None, None] * x
        flat = points.flatten(0, 1).requires_grad_(True)
        (gradient,) = torch.autograd.grad(module(flat)[:, 1].sum(), flat)
        parts = x * gradient.view_as(points).mean(0)
    with torch.no_grad():
        moved = (module(x) - module(torch.zeros_like(x)))[:, 1]
    np.testing.assert_allclose(parts.flatten(1).sum(1).detach(), moved, atol=0.03)
