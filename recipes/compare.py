"""Compare methods on one source under one protocol: what is missing is distilled and measured, then one table.

accelerate launch recipes/compare.py --methods '[random_real,fadrm]' --output results/compare-digits \
    --protocol recipes/configs/protocols/fadrm.yaml --num_seeds 3
accelerate launch recipes/compare.py --config recipes/configs/compare/digits.yaml
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))
