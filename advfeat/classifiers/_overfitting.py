"""Guard against catastrophic overfitting in adversarial training with few attack steps."""

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback

from advfeat.optim._balls import crossing_step
from advfeat.optim._copying import copy_state
from advfeat.optim._network_state import network_state, set_network_state
from advfeat.utils._random import make_rng
from advfeat.utils._warnings import warn_caller

MAX_GUARDED_STEPS = 3  # attack steps up to which the guard looks
_PAPER_STEPS = 7  # steps of the paper, taken after it has struck
_STRONG = 10  # steps of its own attack
_N_SAMPLES = 128
_GAP = 0.25  # five standard errors


class OverfittingGuard(Callback):
    """Take the paper's seven steps as soon as few steps no longer find the weak points.

    Networks trained with one or two steps can learn to mask their gradients: the accuracy under
    the training attack rises while that under a stronger one is lost, often within an epoch (Wong
    et al. 2020). After each epoch both are measured on some training samples. If the strong attack
    takes away more than half, and more than chance would, the epoch is taken back and training
    goes on with seven steps.
    """

    def on_train_begin(self, net, **kwargs):
        """Forget earlier trainings."""
        self.good_ = None

    def on_epoch_begin(self, net, **kwargs):
        """Note that the next batch is the first of an epoch."""
        self.begins_ = True

    def on_batch_begin(self, net, **kwargs):
        """Keep a state to go back to where none was judged, once callbacks have shaped it."""
        if self.begins_ and self.good_ is None and _has_few_steps(net):
            self.good_ = _state(net)
        self.begins_ = False

    def on_epoch_end(self, net, dataset_train=None, **kwargs):
        """Compare the two attacks."""
        net.history.record("attack_steps", net.attack["n_steps"])
        if not _has_few_steps(net):
            self.good_ = None  # a callback may change the attack of the next epoch
            return
        if self.good_ is None:  # as one did during this epoch: the next is judged
            return
        few, strong = self._accuracies(net, dataset_train)
        if few - strong <= max(few / 2, _GAP):
            self.good_ = _state(net)
            return
        n_steps = net.attack["n_steps"]
        weights, optimizer = self.good_
        set_network_state(net.module_, weights)
        rates = [group["lr"] for group in net.optimizer_.param_groups]
        net.optimizer_.load_state_dict(optimizer)
        for group, lr in zip(net.optimizer_.param_groups, rates, strict=True):
            group["lr"] = lr  # the schedule goes on
        net.attack = raised(net.attack)
        warn_caller(
            f"Catastrophic overfitting in epoch {len(net.history)}: of the training samples "
            f"{few:.0%} withstand the training attack (n_steps={n_steps}), but only {strong:.0%} "
            f"one of {_STRONG} steps. The epoch was taken back, and training goes on with "
            f"{_PAPER_STEPS} steps. Pass a larger n_steps or random_start=True to avoid it.",
            ConvergenceWarning,
        )

    def on_train_end(self, net, **kwargs):
        """Drop the state, so that the net can be pickled."""
        del self.good_

    def _accuracies(self, net, data):
        some = np.sort(make_rng(net.seed, 3).permutation(len(data))[:_N_SAMPLES])
        x = data.inputs(some, net.device)
        y = torch.from_numpy(data.y[some]).to(net.device)
        net.retrace()
        strong = {"n_steps": _STRONG, "step_size": crossing_step(net.attack["eps"], _STRONG)}
        found = []
        for changes in ({}, strong):
            z = net.perturb(net.attacked, x, y, **changes)
            with torch.no_grad():
                found.append(float((net.attacked(z).argmax(1) == y).float().mean()))
        return net.ranks_.agreed(found)


def _has_few_steps(net):
    return net.attack["n_steps"] <= MAX_GUARDED_STEPS and net.attack["eps"] > 0


def raised(attack):
    """Give an attack the paper's seven steps."""
    step_size = crossing_step(attack["eps"], _PAPER_STEPS)
    return {**attack, "n_steps": _PAPER_STEPS, "step_size": step_size, "raised": True}


def _state(net):
    return network_state(net.module_), copy_state(net.optimizer_.state_dict())
