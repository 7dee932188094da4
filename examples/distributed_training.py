"""Adversarial training on several processes: one line of torchrun, the same result as on one.

    torchrun --standalone --nproc-per-node=2 examples/distributed_training.py

Each process is given the whole data set and works on its share of every batch; on a machine with
CUDA each takes a GPU of its own. On several machines every one starts this line with its --nnodes
and --rdzv-endpoint instead of --standalone.
"""

import os

import torch
import torch.distributed as dist

from advfeat import AdversarialClassifier
from advfeat.datasets import load_digits

gpu = torch.cuda.is_available()
if gpu:
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
dist.init_process_group("nccl" if gpu else "gloo")

X, y = load_digits(split="train", return_X_y=True)
X_test, y_test = load_digits(split="test", return_X_y=True)

clf = AdversarialClassifier(eps=0.5, n_steps=2, max_epochs=10, random_state=0)
clf.fit(X, y)  # every rank ends with the same weights

if dist.get_rank() == 0:  # predictions need one process only
    print(f"{dist.get_world_size()} processes, accuracy {clf.score(X_test, y_test):.3f}")
dist.destroy_process_group()
