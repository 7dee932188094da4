"""In which settings a run differs from the paper, as sentences for its page."""

from presets import PRESETS, RESTRICTED_IMAGENET
from sets import SETS

_DROPS = {"step": "drops", "constant": "no drops"}


def differences(preset, table, data):
    """List what differs from the paper's preset for the sources and sets of a table."""
    restricted_imagenet, names = bool(table.load), table.sets
    paper = (RESTRICTED_IMAGENET if restricted_imagenet else PRESETS)["paper"]
    if not names:
        return []
    found = [_data(data, restricted_imagenet)]
    found += _differ("network", preset.network, paper.network)
    trained_on = names if table.trained_on is None else table.trained_on
    found += _trainings(preset, paper, trained_on)
    recipes = [SETS[name] for name in names if name in SETS]
    if "adversarial" in names or any(recipe.source == "adversarial" for recipe in recipes):
        found += _differ(
            "adversarial training", _attack(preset.adversary), _attack(paper.adversary)
        )
    inverted = [recipe for recipe in recipes if not recipe.relabelled]
    if any(recipe.init == "sample" for recipe in inverted):
        found += _differ("inversion", _inversion(preset), _inversion(paper))
    if any(recipe.init == "noise" for recipe in inverted):
        found += _differ("inversion from noise", _inversion(preset, True), _inversion(paper, True))
    if len(recipes) > len(inverted):
        found += _differ(
            "relabelling", _attack(preset.relabelling, True), _attack(paper.relabelling, True)
        )
    found += _differ("precision of training and construction", preset.precision, paper.precision)
    return [line for line in found if line]


def _differ(what, ours, paper):
    return [] if ours == paper else [f"{what}: {ours} (paper: {paper})"]


def _data(data, restricted_imagenet):
    ours = f"{data['n_train']:,} training and {data['n_test']:,} test images of {data['label']}"
    if restricted_imagenet:
        return f"data: {ours} (paper: all images of the classes of Table 2, 224 pixels)"
    if data.get("original") and (data["n_train"], data["n_test"]) == (50_000, 10_000):
        return ""
    return f"data: {ours} (paper: 50,000 and 10,000 of CIFAR-10)"


def _trainings(preset, paper, names):
    """One line for all sets whose trainings differ in the same way."""
    lines = {}
    for name in names:
        ours, theirs = (_training(settings.training_of(name)) for settings in (preset, paper))
        if ours != theirs:
            lines.setdefault((ours, theirs), []).append(_on(name))
    return [
        f"training on {', '.join(dict.fromkeys(who))}: {ours} (paper: {theirs})"
        for (ours, theirs), who in lines.items()
    ]


def _on(name):
    return {"standard": "D", "adversarial": "D (adversarial)"}.get(name, name)


def _training(row):
    drops = _DROPS.get(row.lr_schedule, row.lr_schedule)
    augmentation = {"none": "no augmentation", "paper": "the paper's augmentation"}.get(
        row.augmentation, f"augmentation {row.augmentation}"
    )
    return f"lr {row.lr:g}, batch {row.batch_size}, {drops}, {augmentation}, {row.epochs} epochs"


def _attack(attack, relabelling=False):
    step, how = attack.step_size, ""
    if step is None:
        step = attack.eps / 5 if relabelling else 2.5 * attack.eps / attack.n_steps
        how = " (eps / 5)" if relabelling else ""
    return f"L2 eps {attack.eps:g}, {attack.n_steps} steps of {step:.3g}{how}"


def _inversion(preset, from_noise=False):
    how = preset.inversion
    n_steps = how.noise_steps if from_noise else how.n_steps
    if how.solver == "paper":
        return f"{n_steps} steps of {how.step_size:g}, gradient of the identity at all units"
    momentum = f", momentum {how.momentum:g}" if how.solver == "momentum" else ""
    return (
        f"{n_steps} steps that fall from {how.step_size:g} to zero{momentum}, gradient of the "
        "identity at units that are off"
    )
