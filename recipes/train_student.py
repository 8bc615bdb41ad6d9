"""Train students from an artifact alone; the result is filed with it and its card is brought up to date.

accelerate launch recipes/train_student.py runs/fadrm-digits-ipc10 --student timm/resnet18 --num_seeds 3
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-student", *sys.argv[1:]]))
