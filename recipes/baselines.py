"""Train students on what a distilled dataset must be compared with: random real images, hard labels, everything.

accelerate launch recipes/baselines.py runs/fadrm-digits-ipc10
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["baselines", *sys.argv[1:]]))
