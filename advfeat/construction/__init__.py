"""Constructors of data sets that hold only some of the features of the data they are given."""

from advfeat.construction._inverter import RobustFeatureInverter
from advfeat.construction._relabeler import NonRobustRelabeler

__all__ = ["NonRobustRelabeler", "RobustFeatureInverter"]
