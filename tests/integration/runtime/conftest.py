from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import make_private_directory, remove_private_directory, require
from tests.integration.runtime.bundle import BUSYBOX, Bundle


@pytest.fixture
def bundle() -> Iterator[Bundle]:
    """A bundle with busybox; its container `c` is deleted afterwards."""
    require(BUSYBOX.exists(), "no static busybox (apt-get install busybox-static)")
    directory = make_private_directory("r")
    made = Bundle(directory)
    yield made
    made.close()
    remove_private_directory(directory)
