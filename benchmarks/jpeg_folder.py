"""CIFAR-10 as folders of JPEG files, as the committed results have it.

    python benchmarks/jpeg_folder.py ~/.cache/advfeat FOLDER    # downloads CIFAR-10 once (170 MB)

writes FOLDER/{train,test}/<class>/<number>.jpg, of quality 75 with 4:2:0 chroma subsampling, for
``reproduce.py --data FOLDER``. Another version of the JPEG library may round some pixels
otherwise.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from advfeat.datasets import fetch_cifar10


def main(arguments=None):
    """Write both splits; files that are there are written anew."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder that holds, or will hold, CIFAR-10")
    parser.add_argument("folder", type=Path, help="where the files go")
    options = parser.parse_args(arguments)
    for split in ("train", "test"):
        images = fetch_cifar10(options.source, split=split, download=True)
        for label, name in enumerate(images.target_names):
            folder = options.folder / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number, row in enumerate(np.flatnonzero(images.target == label)):
                image = Image.fromarray(images.data[row].transpose(1, 2, 0))
                image.save(folder / f"{number:04}.jpg", quality=75, subsampling="4:2:0")
        print(f"{len(images.data):,} images written to {options.folder / split}/", flush=True)


if __name__ == "__main__":
    main()
