"""Adversarial examples of any fitted estimator that has gradients."""

from advfeat.attacks._adversarial_examples import adversarial_examples
from advfeat.attacks._attackable import Attackable, attackable

__all__ = ["Attackable", "adversarial_examples", "attackable"]
