"""GaussianRobustMLE: the theory of Ilyas et al. 2019, Section 4 and Appendix E.

::

    samples -> class_scatter (class means; principal_axes within the classes)
            -> robust_covariance (average adversary)  or  pointwise (per-sample adversary)
            -> discriminant (decision functions)
            -> estimator, with the methods of theory (Theorems 1 to 3) and accuracy, and matrices
"""

from advfeat.gaussian.estimator import GaussianRobustMLE

__all__ = ["GaussianRobustMLE"]
