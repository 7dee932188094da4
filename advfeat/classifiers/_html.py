"""What scikit-learn's HTML view of a classifier says below its name."""

from numbers import Real

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from advfeat.classifiers._user_modules import name_of
from advfeat.classifiers.networks import resolve_name


def network_line(classifier):
    """Name the network; once it is fitted also its size and the last line of the training curve.

    Parameters
    ----------
    classifier : NetworkClassifier

    Returns
    -------
    str
        Such as "small_cnn, 14,538 parameters; epoch 30: train_loss 0.0123".
    """
    network = getattr(classifier, "network", None)
    named = isinstance(network, str)
    try:
        check_is_fitted(classifier)
    except NotFittedError:
        return f"network: {network if named else name_of(network)}"
    module = classifier.module_
    name = resolve_name(network, classifier.input_shape_) if named else name_of(module.body)
    size = sum(parameter.numel() for parameter in module.parameters())
    line = f"{name}, {size:,} parameters"
    history = getattr(classifier, "history_", None)
    return f"{line}; {_last_line(history[-1])}" if history else line


def _last_line(entry):
    values = [
        f"{name} {value:.3g}"
        for name, value in entry.items()
        if isinstance(value, Real)
        and not isinstance(value, bool)
        and name.endswith(("_loss", "_acc", "_score"))
    ]
    return f"epoch {entry['epoch']}: {', '.join(values)}"
