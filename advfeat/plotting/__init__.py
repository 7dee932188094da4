"""Pictures, as displays in scikit-learn's form; they need ``pip install "advfeat[plots]"``."""

from advfeat.plotting._accuracy_bars import AccuracyBarDisplay
from advfeat.plotting._gaussian_metric import GaussianMetricDisplay
from advfeat.plotting._linear_boundary import LinearBoundaryDisplay
from advfeat.plotting._robustness_curve import RobustnessCurveDisplay
from advfeat.plotting._sample_grid import SampleGridDisplay

__all__ = [
    "AccuracyBarDisplay",
    "GaussianMetricDisplay",
    "LinearBoundaryDisplay",
    "RobustnessCurveDisplay",
    "SampleGridDisplay",
]
