"""
Constructions that are stopped, resumed and distributed
=======================================================

With ``store=FOLDER`` a construction keeps each finished batch. Stopped for whatever reason, it
goes on where it was. With ``n_jobs``, or a joblib backend such as dask, batches run in parallel.
Neither changes a single bit of the result.
"""

import _thread
import tempfile
import threading
import time

import joblib
import matplotlib.pyplot as plt
import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from advfeat import AdversarialClassifier, RobustFeatureInverter
from advfeat.datasets import load_digits

X, y = load_digits(split="train", return_X_y=True)
source = AdversarialClassifier(eps=1.0, n_steps=2, max_epochs=10, random_state=0, verbose=0)
inverter = RobustFeatureInverter(
    FrozenEstimator(source.fit(X, y)), n_steps=100, batch_size=64, random_state=0, verbose=0
)


def timed(constructor):
    """The set that is constructed, and the seconds that it took."""
    start = time.perf_counter()
    return constructor.fit_transform(X, y), time.perf_counter() - start


whole, seconds = timed(clone(inverter))

# %%
# In parallel
# -----------
# ``joblib.parallel_config(backend="dask")`` takes the batches to a cluster in the same way.

with joblib.parallel_config(backend="threading", n_jobs=2):
    parallel, _ = timed(clone(inverter))

# %%
# Stopped and resumed
# -------------------
# A clock presses Ctrl-C half-way through.

with tempfile.TemporaryDirectory() as folder:
    stored = clone(inverter).set_params(store=folder)
    clock = threading.Timer(seconds / 2, _thread.interrupt_main)
    clock.start()
    start = time.perf_counter()
    try:
        stored.fit_transform(X, y)
    except KeyboardInterrupt:
        pass
    clock.cancel()
    before_stop = time.perf_counter() - start
    resumed, after_stop = timed(clone(stored))

print("parallel, same bits:", np.array_equal(parallel, whole))
print("resumed, same bits:", np.array_equal(resumed, whole))

# %%
# What was finished before the stop is not computed again.

fig, ax = plt.subplots(figsize=(6.4, 2), layout="constrained")
ax.barh(["stopped, resumed", "in one go"], [before_stop, seconds], color=["C0", "C2"])
ax.barh(["stopped, resumed"], [after_stop], left=[before_stop], color="C1")
ax.axvline(before_stop, color="black", ls=":")
ax.annotate("Ctrl-C", (before_stop, 0.5), ha="center", va="center", backgroundcolor="white")
ax.set_xlabel("seconds of construction; the sets are equal, bit for bit")
plt.show()
