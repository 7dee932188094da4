"""What the operations of a traced network do, found by trying them."""

from itertools import islice

import torch
from torch import fx

from advfeat.utils._device import is_autocast

_MIN_SHARE = 0.01  # share of random values from which something does not happen by chance
_N_VALUES = 500  # tried, at least
_N_LOGITS = 8  # tried


class Operations:
    """The operations of a graph, each of which can be run alone on values of its shapes.

    Which operation is a ReLU, or only pools, is not read off its name: the same can be written
    in many ways, and what matters is the gradient.

    Parameters
    ----------
    graph : GraphModule
    x : tensor of shape (n, ...)
        Inputs, for the shapes.

    Attributes
    ----------
    in_place : set of str
        Names of the operations tried that change what goes into them.
    """

    def __init__(self, graph, x):
        self.graph = graph.graph
        self.in_place = set()
        self._interpreter = fx.Interpreter(graph, garbage_collect_values=False)
        with torch.no_grad():
            self._interpreter.run(x.clone())
            self._values = dict(self._interpreter.env)
        self._x = x
        self._generator = torch.Generator("cpu").manual_seed(0)  # the same values on every device

    def last_relus(self):
        """Last ReLU on every path to the output, and the operations behind them that carry it on.

        Returns
        -------
        relus : dict of str to str
            Name of each ReLU, and of what goes into it.
        behind : set of str
            Names.
        """
        relus, behind = {}, set()
        open_nodes = list(self.graph.output_node().all_input_nodes)
        while open_nodes:
            node = open_nodes.pop()
            if node.name in relus or node.name in behind or not self._inputs(node):
                continue
            if self._is_relu(node):
                # An in-place one whose changed input others rely on must stay.
                (before,) = self._inputs(node)
                if node.name not in self.in_place or len(before.users) == 1:
                    relus[node.name] = before.name
            elif self._carries(node) and node.name not in self.in_place:
                behind.add(node.name)
                open_nodes.extend(node.all_input_nodes)
        return relus, behind

    def gives_a_score_of_each_class(self, linear):
        """Whether a linear layer gives the logits, but for a scale, a softmax or their order.

        Raising one of its values then raises the logit of one class, its own, and no other.
        """
        (logits,) = self.graph.output_node().all_input_nodes
        shape = _shape(self._values[linear])
        if shape is None or shape != _shape(self._values[logits]):
            return False
        scores, rest = self._random(linear), list(self.graph.nodes)
        rest = rest[rest.index(linear) + 1 : -1]
        with torch.enable_grad():
            scores.requires_grad_(True)
            values = {linear: scores.clone()}
            for node in rest:
                values[node] = self._apply(node, values)
            return scores_each_class(values[logits], scores) and not self._goes_round(
                linear, rest, scores.detach(), values[logits].detach()
            )

    @torch.no_grad()
    def _goes_round(self, linear, rest, scores, expected):
        """Whether the logits depend on the input also past a layer, but for a scale.

        Then there are other inputs that give the layer the same values, and other logits.
        """
        other = other_inputs(self._x)
        interpreter = fx.Interpreter(self._interpreter.module, garbage_collect_values=False)
        try:
            interpreter.run(other.clone())
        except Exception:  # a network need not take what was made up
            return False
        values = {**interpreter.env, linear: scores.clone()}
        for node in rest:
            values[node] = self._apply(node, values)
        (logits,) = self.graph.output_node().all_input_nodes
        return not same_but_for_scale(expected, values[logits])

    def _is_relu(self, node):
        """Whether it works on each value by itself, and is zero and flat for part of them."""
        if len(self._inputs(node)) != 1:
            return False
        (before,) = self._inputs(node)
        n_off = n_tried = 0
        while n_tried < _N_VALUES:
            a, b = self._random(before), self._random(before)
            first = torch.rand(a.shape, device="cpu", generator=self._generator).to(a.device) < 0.5
            out, gradient = self._run(node, [a])
            if out is None or out.shape != a.shape or out.numel() == 0:
                return False
            mixed = self._run(node, [torch.where(first, a, b)])[0]
            if not torch.allclose(mixed, torch.where(first, out, self._run(node, [b])[0])):
                return False
            n_off += int(((out == 0) & (gradient == 0)).sum())
            n_tried += out.numel()
        return _MIN_SHARE < n_off / n_tried < 1 - _MIN_SHARE

    def _carries(self, node):
        """Whether it only pools, reshapes, selects or joins: f(2a) = 2 f(a), no weight below 0."""
        values = [self._random(before) for before in self._inputs(node)]
        out, *gradients = self._run(node, values)
        if out is None:
            return False
        doubled = self._run(node, [2 * value for value in values])[0]
        nothing = self._run(node, [0 * value for value in values])[0]
        return bool(
            torch.allclose(doubled, 2 * out, rtol=1e-4, atol=1e-5)
            and (nothing == 0).all()
            and all((gradient >= 0).all() for gradient in gradients)
        )

    def _run(self, node, values):
        """Run one operation: its output and, for each input, the gradient of a weighted sum."""
        with torch.enable_grad():
            leaves = [value.clone().requires_grad_(True) for value in values]
            given = [leaf.clone() for leaf in leaves]
            out = self._apply(node, dict(zip(self._inputs(node), given, strict=True)))
            if not (isinstance(out, torch.Tensor) and out.is_floating_point()):
                return None, *values
            if any(map(_differs, given, leaves)):
                self.in_place.add(node.name)
            gradients = [torch.zeros_like(leaf) for leaf in leaves]
            if out.requires_grad:
                weight = 0.5 + torch.rand(out.shape, device="cpu", generator=self._generator).to(
                    out.device
                )
                found = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=True)
                gradients = [
                    g if new is None else new for g, new in zip(gradients, found, strict=True)
                ]
        return out.detach(), *gradients

    def _apply(self, node, values):
        def value_of(other):
            return values[other] if other in values else self._values[other]

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value_of)
        return getattr(self._interpreter, node.op)(node.target, args, kwargs)

    def _inputs(self, node):
        """Nodes that give an operation values that depend on the network's input."""
        if node.op in ("placeholder", "get_attr"):
            return []
        return [
            before
            for before in node.all_input_nodes
            if before.op != "get_attr"
            and isinstance(self._values[before], torch.Tensor)
            and self._values[before].is_floating_point()
        ]

    def _random(self, node):
        value = self._values[node]
        like = {"device": "cpu", "dtype": torch.float32}
        return 3 * torch.randn(value.shape, generator=self._generator, **like).to(value)


def scores_each_class(out, scores):
    """Whether raising one of the scores raises the logit of one class, its own, and no other.

    Parameters
    ----------
    out : tensor of shape (..., n_classes)
        Logits, with their graph.
    scores : tensor of the same shape
        What they are made of.
    """
    if not out.requires_grad or out.shape != scores.shape:
        return False
    taken = set()
    masked = (out == -torch.inf).flatten(0, -2).all(0)  # for good
    for i in islice((i for i in range(out.shape[-1]) if not masked[i]), _N_LOGITS):
        (gradient,) = torch.autograd.grad(
            out[..., i].sum(), scores, retain_graph=True, allow_unused=True
        )
        if gradient is None:
            return False
        gradient = gradient.movedim(-1, 0)
        own = int(gradient.flatten(1).mean(1).argmax())
        others = torch.cat([gradient[:own], gradient[own + 1 :]])
        if own in taken or not ((gradient[own] > 0).all() and (others <= 1e-6).all()):
            return False
        taken.add(own)
    return bool(taken)


def other_inputs(x):
    """Give another input for each: that of the next sample, or, if it is the same, a made one."""
    rolled = x.roll(1, 0)
    if ((rolled - x).flatten(1) != 0).any(1).all():
        return rolled
    generator = torch.Generator("cpu").manual_seed(0)
    order = torch.randperm(x[0].numel(), generator=generator, device="cpu")
    return 0.7 * x.flatten(1)[:, order.to(x.device)].view_as(x)


def same_but_for_scale(logits, other):
    """Whether two sets of logits differ in a positive factor for each sample at most."""
    atol = 3e-2 if is_autocast(logits.device.type) else 1e-3
    return torch.allclose(_direction(logits), _direction(other), atol=atol)


def _direction(logits):
    """Logits without their mean and length, in which only a scale shows; -inf as zero."""
    finite = torch.nan_to_num(logits.float(), neginf=0.0)
    centred = finite - finite.mean(-1, keepdim=True)
    return centred / centred.norm(dim=-1, keepdim=True).clamp_min(1e-12)


def _shape(value):
    return value.shape if isinstance(value, torch.Tensor) else None


def _differs(a, b):
    return not torch.equal(a.detach(), b.detach())
