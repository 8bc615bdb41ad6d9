"""Train several students from one artifact: one table of what it teaches to networks that did not distil it.

accelerate launch recipes/cross_architecture.py runs/fadrm-imagenet1k-ipc10 --students \
    '[resnet18,resnet50,resnet101,efficientnet_b0,mobilenetv2,shufflenetv2_x0_5,swin_tiny,wrn50_2,densenet121,
    densenet169,densenet201]'
accelerate launch recipes/cross_architecture.py ORG/NAME --students '[resnet18,swin_tiny]' --protocol rd3
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["cross-architecture", *sys.argv[1:]]))
