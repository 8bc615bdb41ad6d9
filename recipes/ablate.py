"""An ablation: one run with some of its settings changed, one table with the paper's numbers beside ours.

accelerate launch --num_processes 1 recipes/ablate.py --config recipes/configs/ablations/cifar10_small.yaml
Start the same command again, here or on another machine that sees the folder, and the two share the cells.
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["ablate", *sys.argv[1:]]))
