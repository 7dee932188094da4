"""What a file of a classifier holds, and how the classifier is built from it again."""

import math
from collections import OrderedDict

import numpy as np
import torch
from sklearn import config_context
from skorch.callbacks import Callback
from skorch.history import History

from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers._net_setup import make_net
from advfeat.classifiers._plain import (
    NotPlain,
    from_plain,
    labels_from_plain,
    labels_to_plain,
    row_to_plain,
    to_plain,
)
from advfeat.classifiers._user_modules import build_body, name_of
from advfeat.optim._copying import copy_network
from advfeat.optim._network_state import BESIDE, load_weights, set_beside, tensors_beside
from advfeat.utils._device import default_modes, in_float32_on_cpu
from advfeat.utils._random import isolated_torch_seed
from advfeat.utils._warnings import warn_caller

_NUMBERS = ("validation_scores_", "best_validation_score_")
_LABELS = ("classes_", "feature_names_in_")
_ROUTED = ("fit", "partial_fit", "score")  # methods that take metadata
_CLOSE = 0.05  # share of the largest logit by which devices and versions may differ
_MASKED = 1e30  # stands for the -inf of a class that is masked
_MOMENTUM = "momentum_buffer"  # in the state of torch's SGD
_CODE = ("callbacks", "random_state")  # not kept where they are objects


class DoesNotFit(Exception):
    """A file is sound, but not for what was asked."""


def _prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _part(prefix, tensors):
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def state_of(classifier):
    """Return what JSON can hold of a fitted classifier, and its tensors by name."""
    keep = _torch_state if isinstance(classifier, TorchClassifier) else _trained_state
    state, tensors = keep(classifier)
    routing = classifier.get_metadata_routing()
    state["requests"] = {name: getattr(routing, name).requests for name in _ROUTED}
    state["probe"] = _probe(classifier) if state["network"] else None
    return state, tensors


def _probe(classifier):
    """Logits of two samples that no data are needed for; None where chance decides them."""
    module, shape = copy_network(classifier.module_).eval(), classifier.input_shape_
    device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
    found = []
    for seed in (0, 1):
        try:
            with default_modes(), torch.no_grad(), isolated_torch_seed(device, seed):
                x = torch.linspace(0, 1, 2 * math.prod(shape), device=device, dtype=torch.float32)
                found.append(module(x.reshape(2, *shape)).double().cpu())
        except Exception:  # whatever the network's own code raises
            return None
    first, second = (torch.nan_to_num(logits, 0.0, 0.0, -_MASKED) for logits in found)
    return first.tolist() if torch.equal(first, second) else None


def _check_probe(classifier, header):
    """Raise `DoesNotFit` if the network does not give the logits that it gave when it was kept."""
    now, then = _probe(classifier), header.get("probe")
    if now is None or then is None:
        return
    now, then = np.array(now), np.array(then)
    masked = then == -_MASKED
    scale = np.abs(then[~masked]).max(initial=0)
    differing = now.shape != then.shape or not np.array_equal(now == -_MASKED, masked)
    if differing or np.abs(now - then).max() > _CLOSE * scale + 1e-6:
        raise DoesNotFit(
            f"its weights fit network={header['network']}, but the logits are others than when "
            "it was kept. Either the network is built with other arguments now, or it holds what "
            "no file keeps, such as layers in plain lists, NumPy arrays or other objects: "
            "register these (nn.ModuleList, register_buffer), or use pickle."
        )


def classifier_of(kind, params, header, tensors, network):
    """Build the classifier of a class again from its parameters and from what was kept.

    Parameters
    ----------
    kind : class
    params : dict
    header : dict
        What JSON held.
    tensors : dict of str to Tensor
    network : nn.Module, class or function, or None
        The network of one's own.

    Raises
    ------
    DoesNotFit
        If the network is another one.
    """
    build = _load_torch if kind is TorchClassifier else _load_trained
    classifier = build(kind, params, header, tensors, network)
    if network is not None:
        _check_probe(classifier, header)
    requests = header["requests"]
    with config_context(enable_metadata_routing=True):  # else scikit-learn refuses to set them
        for name in _ROUTED:
            if requests.get(name):
                getattr(classifier, f"set_{name}_request")(**requests[name])
    return classifier


def _plain_params(classifier):
    """Parameters as JSON can hold them, the name of an own network, and what is left out."""
    params, dropped, own = {}, [], None
    for name, value in classifier.get_params(deep=False).items():
        if name == "network":
            fitted = classifier.net_.module__network  # it may have been changed since
            value = fitted if isinstance(fitted, str) or isinstance(value, str) else value
        if name in ("network", "module") and not isinstance(value, str):
            own = name_of(value).strip("<>")
            continue
        try:
            params[name] = to_plain(value)
        except NotPlain as error:
            if name not in _CODE:
                raise TypeError(f"save cannot keep {name}={value!r}: {error}.") from error
            params[name] = None
            dropped.append(name)
    return {"params": params, "network": own, "dropped": dropped}


def _torch_state(classifier):
    module = classifier.module
    state = {**_plain_params(classifier), "frozen": _frozen(module), "versions": _versions(module)}
    return state, _tensors_of_network(module)


def _tensors_of_network(module):
    beside = tensors_beside(module).items()
    beside = {k: v for k, v in beside if v.layout is torch.strided}  # a file holds no others
    return _prefixed("network.", module.state_dict()) | beside


def _trained_state(classifier):
    net = classifier.net_
    state = _plain_params(classifier)
    state.update((name, to_plain(getattr(classifier, name, None))) for name in _NUMBERS)
    for name in _LABELS:
        if hasattr(classifier, name):
            state[name] = labels_to_plain(getattr(classifier, name))
    state["input_shape_"] = list(classifier.input_shape_)
    state["seed"] = net.seed
    state["frozen"], state["versions"] = _frozen(net.module_), _versions(net.module_)
    state["history"] = [row_to_plain(row, state["dropped"]) for row in net.history]
    if hasattr(net, "attack"):  # training may have raised the number of steps
        state["attack"] = [int(net.attack["n_steps"]), float(net.attack["step_size"])]
        state["attack_raised"] = net.attack["raised"]
    mean, std = classifier.input_statistics_
    tensors = _tensors_of_network(net.module_)
    tensors.update({"statistics.mean": mean, "statistics.std": std})
    tensors.update(_prefixed("momentum.", _momenta(net)))
    if any(set(held) - {_MOMENTUM} for held in net.optimizer_.state.values()):
        # Of another method, which a callback has put in place.
        state["dropped"].append(f"the state of {type(net.optimizer_).__name__}")
    return state, tensors


def _frozen(module):
    """Names of the parameters that are not trained."""
    return [name for name, weight in module.named_parameters() if not weight.requires_grad]


def _versions(module):
    """Versions of the form in which layers keep their weights, as `load_state_dict` reads them."""
    known = getattr(module.state_dict(), "_metadata", {})
    return {name: layer["version"] for name, layer in known.items() if "version" in layer}


def _momenta(net):
    """Momentum of each parameter that has one, by the parameter's name."""
    state = net.optimizer_.state
    weights = net.module_.named_parameters()
    found = {name: state.get(weight, {}).get(_MOMENTUM) for name, weight in weights}
    return {name: value for name, value in found.items() if value is not None}


def check_network(own, network):
    """Raise `DoesNotFit` unless a network comes just where a file needs one, named ``own``."""
    if own and network is None:
        raise DoesNotFit(
            f"the classifier has a network of its own, {own}, and a file holds no code. Pass it: "
            f"load(path, network={own})."
        )
    if network is not None and not own:
        raise DoesNotFit("it names its network, so 'network' must be left out.")
    if own and not (callable(network) or isinstance(network, TorchClassifier)):
        raise DoesNotFit(
            f"'network' must be {own} as an nn.Module class, a function, a module, or what "
            f"from_torch returns. Got {network!r:.80}."
        )


def _load_torch(kind, params, header, tensors, network):
    n_classes = len(params["classes"])
    with default_modes(), isolated_torch_seed("cpu", 0), in_float32_on_cpu():
        network = network.module if isinstance(network, TorchClassifier) else network
        # In the mode in which the weights were kept, of which some layers make others.
        module = build_body(network, params["input_shape"], n_classes).eval()
        _load_weights(module, tensors, header, network)
        return kind(module, **params)._set_up()


def _load_trained(kind, params, header, tensors, network):
    if network is not None:
        params["network"] = network
    if params.get("callbacks") is not None:
        params["callbacks"] = list(params["callbacks"])
    classifier = kind(**params)
    classifier._check_params()
    for name in _LABELS:
        if name in header:
            setattr(classifier, name, labels_from_plain(header[name]))
    for name in _NUMBERS:
        value = from_plain(header[name])
        setattr(classifier, name, list(value) if isinstance(value, tuple) else value)
    classifier.input_shape_ = tuple(int(side) for side in header["input_shape_"])
    if len(classifier.input_shape_) == 1:
        classifier.n_features_in_ = classifier.input_shape_[0]
    weights = _part("network.", tensors)
    statistics = tensors["statistics.mean"], tensors["statistics.std"]
    callbacks = classifier._callbacks(1, Callback())
    net = make_net(classifier, statistics, 1, int(header["seed"]), callbacks)
    # An own network may have been trained with another start, by `from_torch` or with none.
    for name in ("mean", "std", "order"):
        net.set_params(**{f"module__{name}": weights.get(name)})
    with default_modes(), isolated_torch_seed(net.device, net.seed), in_float32_on_cpu():
        net.initialize()
    _load_weights(net.module_, tensors, header, params["network"])
    net._set_training(False)
    net.history_ = History(
        {**{name: from_plain(value) for name, value in row.items()}, "batches": []}
        for row in header["history"]
    )
    if "attack" in header:
        n_steps, step_size = header["attack"]
        changes = {"n_steps": n_steps, "step_size": step_size, "raised": header["attack_raised"]}
        net.attack = {**net.attack, **changes}
    momenta = _part("momentum.", tensors)
    for name, weight in net.module_.named_parameters():
        if name in momenta:
            net.optimizer_.state[weight][_MOMENTUM] = torch.empty_like(weight).copy_(momenta[name])
    classifier.net_ = net
    if header["dropped"]:
        warn_caller(
            f"Not kept in the file: {', '.join(header['dropped'])}. Set parameters before you "
            "train the classifier again.",
        )
    return classifier


def _load_weights(module, tensors, header, network):
    weights = OrderedDict(_part("network.", tensors))
    versions = header.get("versions", {})
    weights._metadata = {name: {"version": version} for name, version in versions.items()}
    try:
        load_weights(module, weights)
    except RuntimeError as error:
        raise DoesNotFit(
            f"its weights do not fit network={name_of(network)}: {_difference(module, weights)}."
        ) from error
    for name, weight in module.named_parameters():
        if weight.is_floating_point() or weight.is_complex():
            weight.requires_grad_(name not in header["frozen"])
    for name, weight in module.state_dict(keep_vars=True).items():
        strides = header["strides"].get(f"network.{name}", torch.empty(weight.shape).stride())
        spans = [(side - 1) * step for side, step in zip(weight.shape, strides, strict=True)]
        if weight.stride() != tuple(strides) and sum(spans) + 1 == weight.numel():
            like = {"dtype": weight.dtype, "device": weight.device}
            weight.data = torch.empty_strided(weight.shape, strides, **like).copy_(weight.data)
    try:
        set_beside(module, {k: v for k, v in tensors.items() if k.startswith(BESIDE)})
    except LookupError as error:
        raise DoesNotFit(
            f"its weights do not fit network={name_of(network)}: {error.args[0]}."
        ) from error


def _difference(module, weights):
    """First difference between the weights that a module has and those given."""
    own = module.state_dict()
    for name in [*own, *weights]:
        if name not in weights:
            return f"the file lacks {name}"
        if name not in own:
            return f"the network has no {name}"
        if own[name].shape != weights[name].shape:
            return (
                f"{name} has the shape {tuple(weights[name].shape)}, in the network "
                f"{tuple(own[name].shape)}"
            )
    return "they cannot be copied"
