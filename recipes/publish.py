"""Publish an artifact: check -> plan -> upload -> one commit -> version tag.

python recipes/publish.py runs/fadrm-digits-ipc10 org/fadrm-digits-ipc10 --dry_run
"""

import sys

from fadrm_hf.cli import main

if __name__ == "__main__":
    sys.exit(main(["publish", *sys.argv[1:]]))
