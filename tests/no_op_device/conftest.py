"""The device of these tests, built once."""

import pytest

from no_op_device.building import build, why_not
from no_op_device.running import NoOpDevice


@pytest.fixture(scope="session")
def no_op_device(tmp_path_factory: pytest.TempPathFactory) -> NoOpDevice:
    """Build the device, where it can be built."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("no-op-device")
    build(folder)
    return NoOpDevice(folder)
