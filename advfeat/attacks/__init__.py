"""Adversarial examples of any fitted estimator that has gradients."""

from advfeat.attacks._adversarial_examples import adversarial_examples

__all__ = ["adversarial_examples"]
