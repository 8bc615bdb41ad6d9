"""Train students on a whole dataset by the recipe of FADRM's Table 7: the bound in each block of its Table 1.

accelerate launch recipes/whole_dataset.py --source.name uoft-cs/cifar100
accelerate launch recipes/whole_dataset.py --source.name frgfm/imagenette --students '[resnet18,swin_tiny]'
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["whole-dataset", *sys.argv[1:]]))
