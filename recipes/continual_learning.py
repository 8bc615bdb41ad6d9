"""Classes arrive in steps: how well an artifact teaches those seen so far (Fig. 6: Tiny-ImageNet, 5 and 10 steps).

accelerate launch recipes/continual_learning.py runs/fadrm-tiny_imagenet-ipc50 --steps 10
accelerate launch recipes/continual_learning.py runs/rded-tiny_imagenet-ipc50 --steps 10 --orders 3 --num_seeds 1
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["continual-learning", *sys.argv[1:]]))
