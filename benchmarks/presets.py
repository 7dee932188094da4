"""Settings of the paper's comparison at different sizes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Everything that decides a result, apart from the data and the seed."""

    network: str
    n_train: int | None  # None: all
    n_test: int | None
    augmentation: str
    lr: float
    lr_schedule: str
    batch_size: int
    epochs: int  # standard training, of sources and on constructed sets
    adversarial_epochs: int
    train_eps: float  # radius of adversarial training
    train_steps: int
    inversion_solver: str
    inversion_steps: int
    inversion_step_size: float
    relabel_eps: float
    relabel_steps: int
    lr_relabelled: float  # for D_rand
    epochs_relabelled: int  # for D_rand and D_det
    test_eps: tuple[float, ...]
    attack_steps: int
    precision: str = "fp32"


# digits, and the relabelling of small: chosen on held-out training images, never on the test set.
PRESETS = {
    "digits": Preset(
        network="small_cnn",
        n_train=None,
        n_test=None,
        augmentation="none",
        lr=0.2,
        lr_schedule="one-cycle",
        batch_size=64,
        epochs=25,
        adversarial_epochs=25,
        train_eps=1.0,
        train_steps=3,
        inversion_solver="decayed",
        inversion_steps=40,
        inversion_step_size=0.6,
        relabel_eps=1.0,
        relabel_steps=30,
        lr_relabelled=0.2,
        epochs_relabelled=25,
        test_eps=(0.25, 0.5),
        attack_steps=10,
    ),
    "small": Preset(
        network="small_resnet",
        n_train=10_000,
        n_test=1_000,
        augmentation="flip-crop",
        lr=0.1,
        lr_schedule="one-cycle",
        batch_size=128,
        epochs=15,
        adversarial_epochs=15,
        train_eps=0.5,
        train_steps=3,
        inversion_solver="decayed",
        inversion_steps=40,
        inversion_step_size=0.6,
        relabel_eps=1.0,
        relabel_steps=20,
        lr_relabelled=0.05,
        epochs_relabelled=15,
        test_eps=(0.25, 0.5),
        attack_steps=20,
    ),
    "paper": Preset(
        network="resnet50",
        n_train=None,
        n_test=None,
        augmentation="paper",
        lr=0.1,
        lr_schedule="step",
        batch_size=128,
        epochs=150,
        adversarial_epochs=150,
        train_eps=0.5,
        train_steps=7,
        inversion_solver="paper",
        inversion_steps=1000,
        inversion_step_size=0.1,
        relabel_eps=0.5,
        relabel_steps=100,
        lr_relabelled=0.01,
        epochs_relabelled=150,
        test_eps=(0.25, 0.5),
        attack_steps=20,
    ),
}
