"""Measure the number of an artifact again, from the artifact alone; exit code 1 if it is another.

accelerate launch recipes/reproduce.py ORG/NAME --num_seeds 3 --tolerance 2sigma
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
