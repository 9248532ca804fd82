"""Work that outlives its call is finished before the service ends, with what it has started meanwhile."""

import asyncio

import pytest

from payorder.domain.errors import Busy
from payorder.workflows.background import Background


@pytest.fixture
def faults() -> list[BaseException]:
    return []


@pytest.fixture
def background(faults: list[BaseException]) -> Background:
    return Background(faults.append)


async def test_a_drain_waits_for_what_running_work_starts(background: Background) -> None:
    done: list[str] = []

    async def charge() -> None:
        await asyncio.sleep(0.02)
        done.append("charged")

    async def claim() -> None:
        await asyncio.sleep(0.02)
        done.append("claimed")
        background.start(charge())

    background.start(claim())
    assert 0 == await background.drain(5)
    assert ["claimed", "charged"] == done


async def test_a_drain_cancels_what_takes_too_long_and_says_how_much(background: Background) -> None:
    for _ in range(3):
        background.start(asyncio.sleep(60))
    assert 3 == await background.drain(0.01)
    assert 0 == len(background)


async def test_a_fault_is_told_and_a_refusal_is_not(background: Background, faults: list[BaseException]) -> None:
    async def end(error: Exception) -> None:
        raise error

    fault = KeyError()
    for error in (fault, Busy()):
        background.start(end(error))
    await background.drain(5)
    assert [fault] == faults
