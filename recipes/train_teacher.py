"""Train a teacher on a source ("squeeze"), saved as a model directory that timm and transformers load.

accelerate launch recipes/train_teacher.py --architecture resnet18 --source.name uoft-cs/cifar100
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-teacher", *sys.argv[1:]]))
