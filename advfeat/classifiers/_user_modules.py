"""Modules that come from the user: copied, built by the user's own code, tried on two samples.

What does not fit is refused in one line that says what does; no message prints a network.
"""

import contextlib
import inspect

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from advfeat.optim._comparing import close, is_random
from advfeat.optim._copying import computed_tensors, copy_network, tensors_in
from advfeat.optim._network_state import to_device
from advfeat.utils._device import default_modes, has_float64
from advfeat.utils._errors import first_line
from advfeat.utils._random import draws_kept, isolated_torch_seed
from advfeat.utils._warnings import warn_caller


class ForwardError(ValueError):
    """A network raised an exception of its own."""


def name_of(network):
    """Name of a network for messages: the repr of a module would print all of its layers."""
    if isinstance(network, str):
        return repr(network)
    if isinstance(network, nn.Module):
        return f"<{type(network).__name__}>"
    return getattr(network, "__qualname__", type(network).__name__)


def copy_of(module):
    """Copy a module that can be used here, see `copy_network`.

    Raises
    ------
    TypeError
        For what is no module.
    ValueError
        For torch.jit modules, weights that are not float32, and what cannot be copied.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"Expected a trained nn.Module. Got {_what(module)}")
    refuse_unusable(module)
    try:
        return copy_network(module)
    except Exception as error:  # whatever the module holds
        raise ValueError(f"The module {name_of(module)} cannot be copied: {error}") from error


def _what(given):
    """Name what was given instead of a module, and what to do with it."""
    if isinstance(given, type):
        return f"the class {given.__name__}; pass a trained instance of it."
    if isinstance(given, dict):
        return "a dict; load a state dict into a module with load_state_dict, and pass that."
    if hasattr(given, "predict"):
        return f"{type(given).__name__}, an estimator, which needs no from_torch."
    return f"{type(given).__name__}."


def refuse_unusable(module, lazy=False, hint="copy.deepcopy(module).float()"):
    """Raise a ValueError for a module that cannot be copied or attacked here.

    Where it is initialised for each fit (``lazy``) layers may get their shapes then, and weights
    that are not trained may have any type that the network casts.
    """
    for layer in module.modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise ValueError(
                f"torch.jit modules are not supported (found {type(layer).__name__}): pass the "
                "nn.Module that was scripted or traced."
            )
    if not lazy and any(is_lazy(buffer) for buffer in module.buffers()):  # torch cannot copy them
        raise ValueError(
            f"{name_of(module)} has lazy layers whose statistics have no shape yet. Run it once "
            "on a batch before it is passed, or pass the classifier a function that builds it."
        )
    for name, weight in module.named_parameters():
        if weight.is_meta:
            raise ValueError(f"{name} of {name_of(module)} is on the meta device: load weights.")
        counts = weight.is_floating_point() and (weight.requires_grad or not lazy)
        if counts and weight.dtype != torch.float32:
            raise ValueError(
                f"Weights must be float32. {name} of {name_of(module)} is {weight.dtype}; pass "
                f"{hint}."
            )


def portable(module):
    """Give the module, or a copy on the CPU where pickles and deep copies need one."""
    held = tensors_in([[*vars(layer).values()] for layer in module.modules()])
    if computed_tensors(module) or any(tensor.device.type != "cpu" for tensor in held):
        return to_device(copy_network(module), "cpu")
    return module


def build_body(network, input_shape, n_classes):
    """Build the module that a class or function gives, or copy a module.

    Parameters
    ----------
    network : nn.Module, nn.Module class or function that returns a new module
        Of the keywords ``input_shape``, ``in_channels``, ``n_features``, ``n_classes`` and
        ``num_classes`` a class or function is given those that its signature names.
    input_shape : tuple
    n_classes : int

    Returns
    -------
    nn.Module

    Raises
    ------
    ValueError
        If no module comes out, or the same one each time.
    """
    if isinstance(network, nn.Module):
        return to_device(copy_of(network), "cpu")
    offered = {
        "input_shape": input_shape,
        "in_channels": input_shape[0],
        "n_features": input_shape[0],
        "n_classes": n_classes,
        "num_classes": n_classes,
    }
    signature = inspect.signature(network)
    given = {name: value for name, value in offered.items() if name in signature.parameters}
    kinds = {parameter.kind for parameter in signature.parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds and not {"n_classes", "num_classes"} & set(given):
        given["num_classes"] = n_classes  # functions of torchvision pass it on
    try:
        signature.bind(**given)
        body = network(**given)
    except TypeError as error:
        raise ValueError(
            f"network={name_of(network)} cannot be built: {error}. It is given only those that it "
            f"names of {list(offered)}; pass a function that fills in the others."
        ) from error
    if not isinstance(body, nn.Module):
        raise ValueError(
            "The 'network' parameter must be a name or an nn.Module class. Calling the one given "
            f"returned {type(body).__name__}."
        )
    refuse_unusable(body, lazy=True, hint="a function that builds it so")
    if not isinstance(network, type):
        with isolated_torch_seed("cpu", 1):
            _compare(network, body, network(**given))
    return body


def _compare(network, body, again):
    """Refuse a function that returns a module which exists already; warn of trained weights."""
    weights = dict(body.named_parameters())
    others = {id(weight) for weight in again.parameters()}
    if body is again or any(id(weight) in others for weight in weights.values()):
        raise ValueError(
            f"network={name_of(network)} returns the same module at every call, so each fit would "
            "go on from the last one and change your module. Pass the module itself, or "
            "from_torch(module, ...), to start every fit from a copy of its weights; or a "
            "function that builds a new module."
        )
    second = dict(again.named_parameters())
    if any(is_lazy(weight) for weight in weights.values()) or second.keys() != weights.keys():
        return
    varied = any(w.numel() and (w != w.flatten()[0]).any() for w in weights.values())
    if varied and all(torch.equal(weights[name], second[name]) for name in weights):
        warn_caller(
            f"network={name_of(network)} returns the same weights at every call. If they are "
            "trained, note that the mean and std of the training data come in front of them: to "
            "go on from trained weights pass from_torch(module, ...) as the network.",
        )


def check_logits(module, input_shape, n_classes, what, device="cpu"):
    """Raise a ValueError unless the module gives logits: one number per sample and class.

    Modes, batch-norm statistics and gradients of the module stay as they are.

    Parameters
    ----------
    module : nn.Module
    input_shape : tuple
    n_classes : int or None
        None for any number.
    what : str
        Names the module in the message.
    device : torch.device
        Where it computes.

    Returns
    -------
    logits : Tensor of shape (2, n_classes)
        Of two samples, with their graph.
    x : Tensor of shape (2, *input_shape)
        The samples, which require a gradient.
    """
    with _in_eval_mode(module, device):
        return _logits_of_two(module, input_shape, n_classes, what, device)


@contextlib.contextmanager
def _in_eval_mode(module, device):
    """Eval mode inside; modes of layers and global generators are afterwards as before."""
    modes = {layer: layer.training for layer in module.modules()}
    # Lazy layers draw their weights here, which belongs to the draws of a training.
    lazy = any(is_lazy(weight) for weight in module.parameters())
    module.eval()
    try:
        with contextlib.nullcontext() if lazy else draws_kept(module, device):
            yield
    finally:
        for layer, training in modes.items():
            layer.training = training


def _logits_of_two(module, input_shape, n_classes, what, device):
    """See `check_logits`; the module is in eval mode."""
    size = torch.Size(input_shape).numel()
    try:
        with default_modes():
            x = torch.linspace(0, 1, 2 * size, device=device, dtype=torch.float32)
            x = x.reshape(2, *input_shape).requires_grad_()
            # Clones: it may begin in place.
            *outputs, second = [module(rows.clone()) for rows in (x[:1], x, x[1:])]
    except Exception as error:  # whatever the network's own code raises
        raise ForwardError(
            f"{what} failed on one sample of shape {tuple(input_shape)}: {first_line(error)}"
        ) from error
    for n, output in enumerate(outputs, 1):
        _check_shape(output, n, n_classes, what)
    logits = outputs[-1].detach().float()
    if n_classes and logits.isnan().all():  # a skorch net's may not be its logits
        raise ValueError(
            f"{what} returns NaN for all of two samples with values from 0 to 1: look for NaN "
            "among its weights, for a division by zero or an overflow."
        )
    if torch.all(logits >= 0) and torch.allclose(logits.sum(1), torch.ones_like(logits[:, 0])):
        raise ValueError(
            f"{what} returns probabilities (its outputs sum to 1); logits are needed. Take the "
            "softmax away from its end."
        )
    apart = torch.cat([out.detach().float() for out in (outputs[0], second)])
    # A random network differs from call to call, which says nothing of batches.
    if not (close(apart, logits) or _is_random(module, x) or _only_rounds(module, x)):
        raise ValueError(
            f"{what} gives one sample other logits in another batch, so that its predictions say "
            "nothing of the sample alone. Take away what mixes the samples of a batch in eval "
            "mode, such as batch-norm with track_running_stats=False; and let noise of a fixed "
            "seed be the same for all samples."
        )
    return outputs[-1], x


def _is_random(module, x):
    with default_modes():
        return is_random(module, x)


def _only_rounds(module, x):
    """Whether two samples get in float64 what each gets alone: float32 may blow rounding up."""
    with default_modes(), torch.no_grad():
        try:
            where = x.device if has_float64(x.device) else "cpu"
            exact, rows = copy_network(module).to(where).double().eval(), x.to(where).double()
            apart = torch.cat([exact(rows[:1].clone()), exact(rows[1:].clone())])
            return torch.allclose(apart, exact(rows.clone()), rtol=1e-6)
        except Exception:  # it may be made for float32 alone
            return False


def gradients_of(logits, sources, what):
    """Gradients of the logits with respect to some tensors, None for those without one.

    Raises
    ------
    ValueError
        If the network cannot be differentiated, as cuDNN's recurrent layers in eval mode.
    """
    if not logits.requires_grad:
        return [None] * len(sources)
    try:
        return torch.autograd.grad(logits.sum(), sources, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        hint = ""
        if "cudnn" in str(error).lower():
            hint = " Set torch.backends.cudnn.enabled = False, or use device='cpu'."
        raise ValueError(f"{what} cannot be differentiated: {first_line(error)}{hint}") from error


def has_gradient(logits, sources, what):
    """Whether the logits depend on one of the tensors in a way that has a gradient."""
    return any(gradient is not None for gradient in gradients_of(logits, sources, what))


def _check_shape(output, n, n_classes, what):
    expected = f"{what} must return logits of shape (n, {n_classes or 'n_classes'}), as a tensor."
    if isinstance(output, dict):
        keys = ", ".join(map(repr, output))
        raise ValueError(f"{expected} It returned a dict of {keys}; return one of its tensors.")
    if isinstance(output, (tuple, list)):
        raise ValueError(
            f"{expected} It returned a {type(output).__name__} of {len(output)}; return the "
            "tensor of logits alone."
        )
    if not isinstance(output, torch.Tensor):
        raise ValueError(f"{expected} It returned {type(output).__name__}.")
    shape = tuple(output.shape)
    if shape == (n, n_classes) or (not n_classes and shape[:-1] == (n,) and shape[-1] > 1):
        return
    hint = ""
    if n_classes in (2, None) and output.numel() == n:
        hint = " One logit z for two classes: return torch.stack([torch.zeros_like(z), z], 1)."
    raise ValueError(
        f"{expected} For {('one sample', 'two samples')[n - 1]} it returned {shape}." + hint
    )
