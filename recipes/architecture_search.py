"""Does an artifact rank architectures as the whole dataset does? Both are trained on; what is on file is reused.

accelerate launch recipes/architecture_search.py runs/fadrm-cifar10-ipc10 --num_seeds 3
accelerate launch recipes/architecture_search.py runs/fadrm-cifar10-ipc10 --architectures '[resnet18,wrn16_2,convnet3]'
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["rank-architectures", *sys.argv[1:]]))
