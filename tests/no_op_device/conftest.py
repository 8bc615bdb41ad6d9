"""The device of these tests, built once; all of them have a mark, by which they are run apart."""

from pathlib import Path

import pytest

from no_op_device.building import build, why_not
from no_op_device.running import NoOpDevice


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("no_op_device")


@pytest.fixture(scope="session")
def no_op_device(tmp_path_factory: pytest.TempPathFactory) -> NoOpDevice:
    """Build the device, where it can be built."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("no-op-device")
    build(folder)
    return NoOpDevice(folder)
