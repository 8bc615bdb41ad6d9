"""Settings that the libraries read when they are imported, so they are made before anything else."""

import os

os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_OFFLINE="1",
    DO_NOT_TRACK="1",
    OMP_NUM_THREADS="1",  # the networks of the tests are small: threads would wait for each other
)

pytest_plugins = ["fixtures.runs"]  # imported after these lines
