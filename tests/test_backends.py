"""Every kind of work gives the same bits here, in threads, in processes, on dask and on ray."""

import joblib
import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV

from advfeat import (
    AdversarialClassifier,
    NonRobustRelabeler,
    RobustFeatureInverter,
    make_robust_scorer,
    robust_accuracy_curve,
    robust_accuracy_score,
    robust_feature_usefulness,
    transfer_rate,
)


def everything(source, X, y, n_jobs):
    """Result of each kind of work, as arrays."""
    attack = {"norm": 2, "n_steps": 2, "batch_size": 7, "n_jobs": n_jobs, "verbose": 0}
    construct = {"n_steps": 3, "batch_size": 7, "n_jobs": n_jobs, "random_state": 0, "verbose": 0}
    frozen = FrozenEstimator(source)
    inverter = RobustFeatureInverter(frozen, step_size=1.0, **construct)
    relabeler = NonRobustRelabeler(frozen, **construct)
    relabelled = relabeler.fit_transform(X, y)
    search = GridSearchCV(
        AdversarialClassifier(n_steps=1, max_epochs=1, random_state=0, verbose=0),
        {"eps": [0.1, 0.5]},
        scoring=make_robust_scorer(norm=2, eps=0.2, n_steps=1),
        cv=2,
        n_jobs=n_jobs,
    ).fit(X, y)
    return {
        "inverted": inverter.fit_transform(X, y),
        "residuals": inverter.residual_,
        "relabelled": relabelled.X,
        "targets": relabelled.y,
        "score": robust_accuracy_score(source, X, y, eps=0.5, **attack),
        "curve": robust_accuracy_curve(source, X, y, eps_values=[0.2, 0.8], **attack),
        "transfer": transfer_rate(source, source, X, y, eps=0.8, **attack),
        "usefulness": robust_feature_usefulness(
            source, X[:8], y[:8], eps=0.5, **{**attack, "batch_size": 128}
        ),
        "search": search.cv_results_["mean_test_score"],
    }


@pytest.fixture(scope="module")
def work(adversarial, digits):
    X, y, _, _ = digits
    return adversarial, X[:40], y[:40]


@pytest.fixture(scope="module")
def serial(work):
    return everything(*work, n_jobs=1)


def assert_same(found, serial):
    assert found.keys() == serial.keys()
    for name, value in serial.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


pytestmark = pytest.mark.filterwarnings("ignore:The features were matched poorly")


@pytest.mark.long
def test_threads(work, serial):
    with joblib.parallel_config("threading"):
        assert_same(everything(*work, n_jobs=8), serial)


@pytest.mark.slow
def test_processes(work, serial):
    with joblib.parallel_config("loky"):
        assert_same(everything(*work, n_jobs=2), serial)


@pytest.mark.long
def test_dask(work, serial):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=True, dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):  # fmt: skip
        assert_same(everything(*work, n_jobs=None), serial)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_ray(work, serial):
    ray = pytest.importorskip("ray")
    from ray.util.joblib import register_ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        register_ray()
        with joblib.parallel_config("ray"):
            assert_same(everything(*work, n_jobs=2), serial)
    finally:
        ray.shutdown()
