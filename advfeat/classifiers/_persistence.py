"""Classifiers in files without pickles: one safetensors file with a JSON header.

The file holds tensors and text only. Loading looks classes and networks up by name among those of
this package, so no code from the file is run; a network of the user's own is passed by hand.
"""

import hashlib
import json
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from sklearn.utils.validation import check_is_fitted

from advfeat._version import __version__
from advfeat.classifiers._adversarial import AdversarialClassifier
from advfeat.classifiers._from_torch import TorchClassifier
from advfeat.classifiers._plain import from_plain
from advfeat.classifiers._saved_state import DoesNotFit, check_network, classifier_of, state_of
from advfeat.classifiers._standard import StandardClassifier
from advfeat.utils._device import default_modes, resolve_device
from advfeat.utils._errors import first_line
from advfeat.utils._files import resolve_path, writing
from advfeat.utils._typing import Device, PathOrStr

_FORMAT = 1
_DTYPES = {  # that all versions of safetensors know
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip
_KINDS = {
    kind.__name__: kind for kind in (StandardClassifier, AdversarialClassifier, TorchClassifier)
}


def save(classifier: Any, path: PathOrStr) -> None:
    """Write a fitted classifier into one file, without pickle.

    The file appears whole or not at all. It holds the weights, the state of the optimizer and the
    history of each epoch (without that of single batches), all parameters, metadata requests and
    labels; a network of your own, skorch callbacks, a RandomState and objects in the history are
    not kept.

    Parameters
    ----------
    classifier : StandardClassifier, AdversarialClassifier or TorchClassifier
        Fitted. For anything else use pickle.
    path : str or path
        A safetensors file, such as ``source.safetensors``.

    Raises
    ------
    TypeError
        For other estimators, and for parameters and tensors that a file cannot keep.
    NotFittedError
        Before `fit`.
    FileNotFoundError
        If the folder does not exist.

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
        names = ("best_estimator_", "estimator_", "estimator")
        kept = tuple(_KINDS.values())
        held = {name: getattr(classifier, name, None) for name in names}
        fitted = (n for n, v in held.items() if isinstance(v, kept) and hasattr(v, "classes_"))
        inner = next(fitted, None)
        raise TypeError(
            f"save keeps {', '.join(_KINDS)} (see from_torch). Got {name}; "
            + (f"pass its {inner}." if inner else "use pickle or joblib for it.")
        )
    check_is_fitted(classifier)
    path = resolve_path(path, "path", "a file")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"'{path}' cannot be written: the folder does not exist.")
    header = {"format": _FORMAT, "advfeat": __version__, "torch": torch.__version__}
    header["class"] = name
    state, tensors = state_of(classifier)
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
        If the file is damaged, from a newer version, something else, or does not fit the network,
        which must have its weights and give the logits that it gave when it was kept.

    Warns
    -----
    UserWarning
        If the classifier had callbacks, a RandomState or objects in its history, which are not
        kept.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> from advfeat import from_torch, load, save
    >>> clf = from_torch(torch.nn.Linear(4, 2), classes=["no", "yes"], input_shape=(4,))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(clf, f"{folder}/net.safetensors")
    ...     load(f"{folder}/net.safetensors", network=torch.nn.Linear(4, 2)).classes_.tolist()
    ['no', 'yes']
    """
    if device is not None:
        resolve_device(device)
    path = resolve_path(path, "path", "a file")
    if not path.is_file():
        raise FileNotFoundError(f"Expected a file of advfeat.save in '{path}', found none.")
    with default_modes():
        return _classifier_in(path, network, device)


def _classifier_in(path, network, device):
    header, tensors = _read(path)
    try:
        kind = _KINDS[header["class"]]
        params = {name: from_plain(value) for name, value in header["params"].items()}
        if device is not None:
            params["device"] = device
        own = header["network"]
        check_network(own, network)
        return classifier_of(kind, params, header, tensors, network if own else None)
    except DoesNotFit as error:
        raise ValueError(f"'{path}': {error}") from error
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"'{path}' cannot be read: its header is not that of a classifier "
            f"({type(error).__name__}: {first_line(error)})."
        ) from error
    except ValueError as error:
        raise ValueError(f"'{path}' cannot be read: {first_line(error)}") from error


# ---- the file -----------------------------------------------------------------------------------


def _read(path):
    """Header and tensors of a sound file of this format."""
    data = path.read_bytes()  # not mapped: a file that is overwritten meanwhile kills the process
    try:
        # Copies, which lie in memory as torch likes it.
        found = from_bytes(data)
        tensors = {name: found[name].clone() for name in sorted(found)}
        size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    except (SafetensorError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"'{path}' is damaged, or no file of advfeat.save ({first_line(error)})."
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
    except (ValueError, KeyError, TypeError, RecursionError) as error:
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
        own = getattr(type(tensor), "__torch_dispatch__", None)  # holds its numbers elsewhere
        if not isinstance(tensor, torch.Tensor) or own is not torch.Tensor.__torch_dispatch__:
            kind = f"a {type(tensor).__name__}"
        elif tensor.layout is not torch.strided or tensor.is_quantized:
            kind = "sparse or quantised"
        elif tensor.dtype not in _DTYPES:
            kind = f"of {tensor.dtype}"
        else:
            kind = None
        if kind is not None:
            raise TypeError(
                f"save keeps torch's own dense tensors of the usual types only, but {name!r} of "
                f"the network is {kind}; use pickle."
            )
        plain[name] = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
        plain[name].copy_(tensor.detach())
        if tensor.stride() != plain[name].stride():  # convolutions round by how weights lie
            strides[name] = list(tensor.stride())
    return plain, strides
