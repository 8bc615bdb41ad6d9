"""Settings that the libraries read when they are imported, so they are made before anything else.

The Hub they know is a server in this process: nothing leaves the machine.
"""

import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from fixtures import hub_control

_home = tempfile.mkdtemp(prefix="fadrm-hf-home-")

for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
    os.environ.pop(name, None)
os.environ.update(
    HF_ENDPOINT=hub_control.running().url,
    HF_HOME=_home,
    HF_HUB_DISABLE_XET="1",  # xet's own servers are not here; files travel by LFS
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_ETAG_TIMEOUT="600",  # seconds; the machine may be busy
    HF_HUB_DOWNLOAD_TIMEOUT="600",
    DO_NOT_TRACK="1",
    NO_PROXY="127.0.0.1,localhost",
    PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",  # as where the environment is active
    OMP_NUM_THREADS="1",  # the networks of the tests are small: threads would wait for each other
    TORCHINDUCTOR_COMPILE_THREADS="1",  # a pool of compilers takes longer to start than their few functions take
)

# Who is started in the background ignores Ctrl-C, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["fixtures.cases", "fixtures.hub", "fixtures.runs"]  # the last imports the library, after these lines


# Files that take a minute or more, the longest first: at the end no worker is left alone with one of them.
LONG = (
    "publishing/test_hub_line.py",
    "methods/test_every_method.py",
    "networks/test_frozen.py",
    "pipeline/test_distill.py",
    "robustness/test_faults.py",
    "runtime/test_compilation.py",
    "evaluation/test_compare.py",
    "evaluation/test_ablation.py",
    "documents/test_documents.py",
    "recovery/test_forms.py",
    "pipeline/test_jobs.py",
    "robustness/test_soak.py",
    "publishing/test_publish.py",
    "training/test_train_student.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; xdist hands files out in this order (`--no-loadscope-reorder`)."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path, len(LONG)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none; `-m gpu` runs it alone."""
    if item.get_closest_marker("gpu") is not None:
        import torch  # a test that needs none may be of a file that does without

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


def pytest_unconfigure() -> None:
    """Stop the server; its files and the caches of all tests go with it."""
    hub_control.running().stop()
    shutil.rmtree(_home, ignore_errors=True)
