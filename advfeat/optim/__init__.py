"""Where inputs are optimised: the loop, its losses and feasible sets, the networks."""

from advfeat.optim._attacked import AttackedNetwork
from advfeat.optim._balls import L2Ball, LinfBall, make_ball, row_norms, useful_radius
from advfeat.optim._frozen import FrozenNetwork
from advfeat.optim._losses import (
    cross_entropy,
    cw_margin,
    feature_distance,
    feature_value,
    targeted_cross_entropy,
    targeted_margin,
)
from advfeat.optim._pgd import HalfCosine, into_box, projected_gradient

__all__ = [
    "AttackedNetwork",
    "FrozenNetwork",
    "HalfCosine",
    "L2Ball",
    "LinfBall",
    "cross_entropy",
    "cw_margin",
    "feature_distance",
    "feature_value",
    "into_box",
    "make_ball",
    "projected_gradient",
    "row_norms",
    "targeted_cross_entropy",
    "targeted_margin",
    "useful_radius",
]
