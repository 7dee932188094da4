"""Settings of the paper's comparison at different sizes."""

from dataclasses import dataclass

from architectures import small_densenet, small_inception, small_vgg


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
    noise_steps: int  # inversion from noise; the paper takes ten times as many
    other_samples: int  # test images for AutoAttack, Figure 8 and usefulness
    curve_steps: tuple[int, ...]  # Figure 8
    architectures: tuple  # Figure 3; the first is that of the sources
    n_grid: int | None  # training images and epochs of the grid search (Table 3)
    grid_epochs: int
    grid_sets: tuple[str, ...]
    early_epochs: int  # of the model whose own mistakes make a set (controls)
    n_compared: tuple[int | None, int | None]  # training and test images of our own comparisons
    imagenet_size: int  # pixels, and training images (Figures 11 and 12)
    imagenet_samples: int
    precision: str = "fp32"
    inversion_momentum: float = 0.9  # for the solver "momentum"


_CURVE = (5, 10, 25, 50, 100, 250, 500, 1000, 2500)
_SMALL = ("small_resnet", small_vgg, small_densenet, small_inception)

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
        noise_steps=400,
        other_samples=100,
        curve_steps=_CURVE,
        architectures=("small_cnn", *_SMALL),
        n_grid=None,
        grid_epochs=10,
        grid_sets=("D_R", "D_NR", "D_rand", "D_det"),
        early_epochs=2,
        n_compared=(None, None),
        imagenet_size=32,
        imagenet_samples=900,
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
        inversion_solver="momentum",
        inversion_steps=150,
        inversion_step_size=0.05,
        relabel_eps=1.0,
        relabel_steps=20,
        lr_relabelled=0.05,
        epochs_relabelled=15,
        test_eps=(0.25, 0.5),
        attack_steps=20,
        noise_steps=100,
        other_samples=50,
        curve_steps=_CURVE,
        architectures=("small_resnet", *_SMALL[1:], "small_cnn"),
        n_grid=2_000,
        grid_epochs=10,
        grid_sets=("D_R", "D_det"),
        early_epochs=2,
        n_compared=(5_000, None),
        imagenet_size=64,
        imagenet_samples=9_000,
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
        noise_steps=10_000,
        other_samples=1_000,
        curve_steps=_CURVE,
        architectures=("resnet50", "resnet18", "vgg16", "densenet121", "inception_v3"),
        n_grid=None,
        grid_epochs=150,
        grid_sets=("D_R", "D_NR", "D_rand", "D_det"),
        early_epochs=2,
        n_compared=(None, None),
        imagenet_size=224,
        imagenet_samples=36_000,
    ),
}
