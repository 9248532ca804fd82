"""One `./dev up` for all tests that do not end it."""

from collections.abc import AsyncIterator

import pytest

from support.up import Running, up


@pytest.fixture(scope="package")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    async with up(tmp_path_factory.mktemp("up") / "data") as started:
        yield started
