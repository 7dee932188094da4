"""Classifiers in files without pickles: one safetensors file with a JSON header.

The file holds tensors and text only. Loading looks classes and networks up by name among those of
this package, so no code from the file is run; a network of the user's own is passed by hand.
"""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from sklearn.utils.validation import check_is_fitted
from skorch.callbacks import Callback
from skorch.history import History

from advfeat._version import __version__
from advfeat.classifiers._adversarial import AdversarialClassifier
from advfeat.classifiers._fitting import build
from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers._making import make_net
from advfeat.classifiers._own_modules import build_body, name_of
from advfeat.classifiers._plain import (
    NotPlain,
    from_plain,
    labels_from_plain,
    labels_to_plain,
    row_to_plain,
    to_plain,
)
from advfeat.classifiers._standard import StandardClassifier
from advfeat.utils._device import own_modes
from advfeat.utils._files import writing
from advfeat.utils._random import isolated_torch_seed
from advfeat.utils._typing import Device, PathOrStr

_FORMAT = 1
_KINDS = {
    kind.__name__: kind for kind in (StandardClassifier, AdversarialClassifier, TorchClassifier)
}
_NUMBERS = ("validation_scores_", "best_validation_score_")
_LABELS = ("classes_", "feature_names_in_")
_CODE = ("callbacks", "random_state")  # not kept where they are objects


def save(classifier: Any, path: PathOrStr) -> None:
    """Write a fitted classifier into one file, without pickle.

    The file appears whole or not at all. It holds the weights, the state of the optimizer and the
    history of each epoch (without that of single batches), all parameters and labels; a network
    of your own, skorch callbacks, a RandomState and objects in the history are not kept.

    Parameters
    ----------
    classifier : StandardClassifier, AdversarialClassifier or TorchClassifier
        Fitted. For anything else use pickle.
    path : str or path
        A safetensors file, such as ``source.safetensors``.

    Raises
    ------
    TypeError
        For other estimators.
    NotFittedError
        Before `fit`.

    Examples
    --------
    >>> import tempfile
    >>> from advfeat import StandardClassifier, load, save
    >>> from advfeat.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = StandardClassifier(max_epochs=2, random_state=0).fit(X[:500], y[:500])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(clf, f"{folder}/source.safetensors")
    ...     again = load(f"{folder}/source.safetensors")
    >>> bool((again.decision_function(X) == clf.decision_function(X)).all())
    True
    """
    name = type(classifier).__name__
    if type(classifier) is not _KINDS.get(name):
        inner = getattr(classifier, "estimator", None)
        raise TypeError(
            f"save keeps {', '.join(_KINDS)} (see from_torch). Got {name}; "
            + ("pass its estimator." if inner is not None else "use pickle or joblib for it.")
        )
    check_is_fitted(classifier)
    path = Path(path).expanduser()
    if not path.parent.is_dir():
        raise FileNotFoundError(f"'{path}' cannot be written: the folder does not exist.")
    header = {"format": _FORMAT, "advfeat": __version__, "torch": torch.__version__}
    header["class"] = name
    keep = _torch_state if isinstance(classifier, TorchClassifier) else _trained_state
    state, tensors = keep(classifier)
    tensors, header["strides"] = _plain_tensors(tensors)
    text = json.dumps({**header, **state}, allow_nan=False)
    metadata = {"advfeat": text, "checksum": _checksum(text, tensors)}
    with writing(path) as file:
        file.write(to_bytes(tensors, metadata))


def load(path: PathOrStr, *, network: Any = None, device: Device | None = None) -> Any:
    """Read a classifier that `save` wrote.

    No code from the file is run.

    Parameters
    ----------
    path : str or path
        The file that `save` has written.
    network : nn.Module class, function or nn.Module, default=None
        The network's architecture, where it is your own; the weights are those of the file.
    device : str or torch.device, default=None
        In place of the device that the classifier was saved with.

    Returns
    -------
    StandardClassifier, AdversarialClassifier or TorchClassifier
        Fitted, with the same predictions to the bit. `partial_fit` goes on where it was.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, from a newer version, something else, or does not fit the network.

    Warns
    -----
    UserWarning
        If the classifier had callbacks, a RandomState or objects in its history, which are not
        kept.

    Examples
    --------
    See `save`.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file of advfeat.save in '{path}', found none.")
    header, tensors = _read(path)
    try:
        kind = _KINDS[header["class"]]
        params = {name: from_plain(value) for name, value in header["params"].items()}
        if device is not None:
            params["device"] = device
        own = header["network"]
        _check_network(own, network)
        build = _load_torch if kind is TorchClassifier else _load_trained
        return build(kind, params, header, tensors, network if own else None)
    except _DoesNotFit as error:
        raise ValueError(f"'{path}': {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"'{path}' cannot be read: its header is not that of a classifier "
            f"({type(error).__name__}: {_first_line(error)})."
        ) from error
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be read: {_first_line(error)}") from error


class _DoesNotFit(Exception):
    """The file is sound, but not for what was asked."""


# ---- the file -----------------------------------------------------------------------------------


def _read(path):
    """Header and tensors of a sound file of this format."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"'{path}' is damaged, or no file of advfeat.save ({_first_line(error)})."
        ) from error
    if "advfeat" not in metadata:
        raise ValueError(
            f"'{path}' is a safetensors file, but not of advfeat.save. Weights alone are loaded "
            "into a module (safetensors.torch.load_file), and that goes through from_torch."
        )
    text = metadata["advfeat"]
    try:
        header = json.loads(text)
        number, version = int(header["format"]), str(header["advfeat"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"'{path}' is damaged: its header cannot be read.") from error
    if number > _FORMAT:
        raise ValueError(
            f"'{path}' was written by advfeat {version} in format {number}; advfeat "
            f"{__version__} reads formats up to {_FORMAT}. Install that version, or a newer one."
        )
    if metadata.get("checksum") != _checksum(text, tensors):
        raise ValueError(f"'{path}' is damaged: its content does not have the checksum it names.")
    return header, tensors


def _checksum(text, tensors):
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def _plain_tensors(tensors):
    """Copy tensors as safetensors wants them: on the CPU, contiguous, apart; and their strides."""
    plain, strides = {}, {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"save keeps tensors only, but {name!r} of the network is "
                f"{type(tensor).__name__}; use pickle."
            )
        plain[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        plain[name].copy_(tensor.detach())
        if tensor.stride() != plain[name].stride():  # convolutions round by how weights lie
            strides[name] = list(tensor.stride())
    return plain, strides


def _prefixed(prefix, tensors):
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


def _part(prefix, tensors):
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _first_line(error):
    return (str(error).strip().splitlines() or [""])[0]


# ---- what the classifiers keep ------------------------------------------------------------------


def _plain_params(classifier):
    """Parameters as JSON can hold them, the name of an own network, and what is left out."""
    params, dropped, own = {}, [], None
    for name, value in classifier.get_params(deep=False).items():
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
    return _plain_params(classifier), _prefixed("network.", classifier.module.state_dict())


def _trained_state(classifier):
    net = classifier.net_
    state = _plain_params(classifier)
    state.update((name, to_plain(getattr(classifier, name, None))) for name in _NUMBERS)
    for name in _LABELS:
        if hasattr(classifier, name):
            state[name] = labels_to_plain(getattr(classifier, name))
    state["input_shape_"] = list(classifier.input_shape_)
    state["seed"] = net.seed
    state["history"] = [row_to_plain(row, state["dropped"]) for row in net.history]
    if hasattr(net, "attack"):  # training may have raised the number of steps
        state["attack"] = [int(net.attack["n_steps"]), float(net.attack["step_size"])]
        state["attack_raised"] = net.attack["raised"]
    mean, std = classifier.input_statistics_
    tensors = _prefixed("network.", net.module_.state_dict())
    tensors.update({"statistics.mean": mean, "statistics.std": std})
    for i, weight in enumerate(_optimized(net)):
        tensors.update(_prefixed(f"optimizer.{i}.", _tensors_of(net.optimizer_.state[weight])))
    return state, tensors


def _optimized(net):
    return [weight for group in net.optimizer_.param_groups for weight in group["params"]]


def _tensors_of(state):
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


# ---- and how they are built again ---------------------------------------------------------------


def _check_network(own, network):
    if own and network is None:
        raise _DoesNotFit(
            f"the classifier has a network of its own, {own}, and a file holds no code. Pass it: "
            f"load(path, network={own})."
        )
    if network is not None and not own:
        raise _DoesNotFit("it names its network, so 'network' must be left out.")


def _load_torch(kind, params, header, tensors, network):
    n_classes = len(params["classes"])
    module = build_body(network, params["input_shape"], n_classes)
    _load_weights(module, _part("network.", tensors), header, network)
    return kind(module, **params)._set_up()


def _load_trained(kind, params, header, tensors, network):
    if network is not None:
        params["network"] = network
    if params.get("callbacks") is not None:
        params["callbacks"] = list(params["callbacks"])
    classifier = kind(**params)
    classifier._validate_params()
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
    with own_modes(), isolated_torch_seed(net.device, net.seed):
        build(net)
    _load_weights(net.module_, weights, header, params["network"])
    net._set_training(False)
    net.history_ = History(
        {**{name: from_plain(value) for name, value in row.items()}, "batches": []}
        for row in header["history"]
    )
    if "attack" in header:
        n_steps, step_size = header["attack"]
        # Files of before the key: only the guard could have changed the number of steps.
        raised = header.get("attack_raised", n_steps != params["n_steps"])
        changes = {"n_steps": n_steps, "step_size": step_size, "raised": raised}
        net.attack = {**net.attack, **changes}
    for i, weight in enumerate(_optimized(net)):
        for name, value in _part(f"optimizer.{i}.", tensors).items():
            net.optimizer_.state[weight][name] = torch.empty_like(weight).copy_(value)
    classifier.net_ = net
    if header["dropped"]:
        warnings.warn(
            f"Not kept in the file: {', '.join(header['dropped'])}. Set parameters before you "
            "train the classifier again.",
            UserWarning,
            stacklevel=3,
        )
    return classifier


def _load_weights(module, weights, header, network):
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise _DoesNotFit(
            f"its weights do not fit network={name_of(network)}: {_difference(module, weights)}."
        ) from error
    for name, weight in module.state_dict(keep_vars=True).items():
        strides = header["strides"].get(f"network.{name}", torch.empty(weight.shape).stride())
        spans = [(side - 1) * step for side, step in zip(weight.shape, strides, strict=True)]
        if weight.stride() != tuple(strides) and sum(spans) + 1 == weight.numel():
            like = {"dtype": weight.dtype, "device": weight.device}
            weight.data = torch.empty_strided(weight.shape, strides, **like).copy_(weight.data)


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
