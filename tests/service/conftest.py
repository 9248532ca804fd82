"""A service in this process on each engine, with the settings a test asks for."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from conftest import ENGINES, NewMigrated
from support.service import Service, serving

Serve = Callable[..., AbstractAsyncContextManager[Service]]


@pytest.fixture(params=ENGINES)
async def serve(request: pytest.FixtureRequest, tmp_path: Path, new_migrated: NewMigrated) -> Serve:
    """Starts a service over one database of the test's own, on each engine; may be used again after it has stopped."""
    url = await new_migrated(request.param, tmp_path)

    def start(**settings: Any) -> AbstractAsyncContextManager[Service]:
        return serving(tmp_path, url, migrates=False, **settings)

    return start


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """One service on SQLite for the tests of a module, where the engine does not matter."""
    folder = tmp_path_factory.mktemp("service")
    async with serving(folder, f"sqlite:///{folder / 'payorder.db'}") as started:
        yield started
