"""A dataset can be read where the system is another than Linux: what only POSIX has is not needed for that."""

import subprocess
import sys
from pathlib import Path

ARTIFACT = Path(__file__).parent.parent / "fixtures/format1"

READER = """
import sys
import psutil  # has a half for each system, and that for Linux imports resource
for name in ("fcntl", "grp", "pwd", "resource"):
    sys.modules[name] = None  # an import of it fails
from fadrm_hf import load_distilled
distilled = load_distilled(sys.argv[1])
(batch,) = distilled.batches(range(1))
assert batch.images.shape == (10, 3, 16, 16) and batch.logits.shape == (10, 10)
from fadrm_hf.cli import main
assert main(["info", sys.argv[1]]) == 0
"""


def test_a_dataset_is_read_without_what_only_posix_has():
    done = subprocess.run([sys.executable, "-c", READER, str(ARTIFACT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "FADRM" in done.stdout
