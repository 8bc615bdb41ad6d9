"""Train students from an artifact alone, in a run folder or on the Hub, and record how good they are.

accelerate launch recipes/train_student.py runs/fadrm-digits-ipc10 --student timm/resnet18 --num_seeds 3
accelerate launch recipes/train_student.py --artifact ORG/NAME --student timm/resnet18
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-student", *sys.argv[1:]]))
