"""Distil a dataset: source -> teachers -> patches -> recover -> relabel -> artifact with its card.

accelerate launch recipes/distill.py --config recipes/configs/digits/fadrm_ipc10.yaml --method.alpha 0.4
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["distill", *sys.argv[1:]]))
