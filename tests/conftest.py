"""Settings that the libraries read when they are imported, and what most tests need: a place to work, small sources."""

import os

os.environ.update(
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_UPDATE_DOWNLOAD_COUNTS="0",
    HF_HUB_DISABLE_UPDATE_CHECK="1",
    HF_HUB_OFFLINE="1",
    DO_NOT_TRACK="1",
)
