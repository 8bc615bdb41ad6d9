"""Slim a network by an artifact alone: train with a penalty, take channels out, train again (EDC, Fig. 4: VGG-11-BN).

accelerate launch recipes/network_slimming.py runs/edc-imagenet1k-ipc10 --ratio 0.5
accelerate launch recipes/network_slimming.py runs/fadrm-cifar10-ipc10 --student vgg11_bn_small --ratio 0
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["slim", *sys.argv[1:]]))
