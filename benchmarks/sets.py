"""The constructed data sets by name: source, method and radius."""

from dataclasses import dataclass

SOURCES = ("standard", "adversarial")  # trained on D itself
SECOND = "standard, second"  # as "standard", with another seed


@dataclass(frozen=True)
class SetRecipe:
    """How a set is constructed."""

    source: str
    how: str  # "invert", or the relabeler's target
    init: str = "sample"
    eps: float | None = None  # None: the preset's

    @property
    def relabelled(self):
        """Whether the labels change."""
        return self.how != "invert"


SETS = {
    "D_R": SetRecipe("adversarial", "invert"),
    "D_NR": SetRecipe("standard", "invert"),
    "D_rand": SetRecipe("standard", "random"),
    "D_det": SetRecipe("standard", "deterministic"),
    "D_R from noise": SetRecipe("adversarial", "invert", "noise"),
    "D_NR from noise": SetRecipe("standard", "invert", "noise"),
    "D_rand, robust source": SetRecipe("adversarial", "random"),
    "D_det, robust source": SetRecipe("adversarial", "deterministic"),
    "D_other": SetRecipe("standard", "other"),
    "D_other, robust source": SetRecipe("adversarial", "other"),
    "D_rand, eps 1": SetRecipe("standard", "random", eps=1.0),
    "D_other, eps 1": SetRecipe("standard", "other", eps=1.0),
    "D_det, eps 1": SetRecipe("standard", "deterministic", eps=1.0),
}
# Each has a seed of its own, by its place: append, never insert.
POSITIONS = {name: i for i, name in enumerate((*SOURCES, *SETS))} | {SECOND: 100}
