"""Where the processor time of a call goes: the same load as in `pay`, looked at a hundred times a second by py-spy.

py-spy stops the process for each look, so that shares are right and times are not: those are of a run without it. It
must be allowed to look into the service, whose memory is private: only root is.
"""

import asyncio
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from bench.measure import Mismatch, pay
from bench.report import Section
from bench.sections.pay import FLOOR, PAYORDER, RULES
from bench.sizes import Sizes
from bench.stage import Stage, Target

_LOOKS_PER_SECOND = 100
# A thread that waits in one of these uses no processor.
_IDLE = re.compile(r"epoll_p?wait|futex|pthread_cond|poll \(")
# The first pattern that a frame fits, from the innermost frame outwards, says whose a look is: first our own parts,
# what they call included, then the libraries that nobody of ours has called.
_OURS = (
    ("log lines", r"payorder/observability/"),
    ("access token", r"payorder/adapters/tokens"),
    ("rules of the contract, search for card numbers", r"payorder/edge/validation|protovalidate"),
    (
        "messages to values and back, masking, stored answer",
        r"payorder/(edge/(translate|sources|replies|idempotency|headers)|domain/)",
    ),
    ("steps around a call, servicer", r"payorder/edge/"),
    ("processor", r"payorder/adapters/processors/"),
    (
        "reconciler, health",
        r"payorder/workflows/reconcile|payorder/adapters/database/(migrate|findings|refunds)|_watch_health",
    ),
    ("statements, their connections and asyncpg", r"payorder/adapters/database/|bench/floor/.*_write|asyncpg"),
    ("workflow", r"payorder/workflows/|payorder/adapters/system"),
    ("handler of the floor", r"(pay_order|pay_order_by_the_rules|_new_payment|_masked|_reply|_to_json) \(bench/floor/"),
)
_LIBRARIES = (
    ("gRPC", r"grpc"),
    ("protobuf", r"protobuf|upb|_message\."),
    ("asyncpg", r"asyncpg"),
    ("event loop (uvloop, asyncio)", r"uvloop|uv_|loop\.c|asyncio"),
)  # fmt: skip - a table


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    targets = [
        await stage.floor(FLOOR, await stage.postgres_url("floor")),
        await stage.floor(RULES, await stage.postgres_url("rules"), obeys_rules=True),
        await stage.payorder(PAYORDER, await stage.postgres_url("payorder")),
    ]
    found = {target.name: await _profile(stage, target, sizes) for target in targets}
    return [_section(found, sizes)]


async def _profile(stage: Stage, target: Target, sizes: Sizes) -> dict[str, float]:
    """Milliseconds of a call, by part."""
    warm = await pay(target, stage.tokens(target), seconds=sizes.seconds, callers=sizes.callers)
    stacks = stage.folder / f"{target.name}.stacks"
    looking = asyncio.create_task(_look(target.meters["server"].process_id, stacks, sizes.seconds))
    await pay(target, stage.tokens(target), seconds=sizes.seconds * 2, callers=sizes.callers)
    await looking
    looks = Counter[str]()
    for frames, count in _busy(stacks):
        looks[_part(frames)] += count
    print(f"  {target.name}: {looks.total()} looks", flush=True)
    return {part: warm.cpu_ms["server"] * count / looks.total() for part, count in looks.most_common()}


async def _look(process_id: int, stacks: Path, seconds: float) -> None:
    await asyncio.sleep(seconds / 2)
    command = ["py-spy", "record", "--native", "--rate", str(_LOOKS_PER_SECOND), "--format", "raw"]
    command += ["--duration", str(round(seconds)), "--output", str(stacks), "--pid", str(process_id)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await process.communicate()
    if process.returncode != 0:
        raise Mismatch(f"py-spy could not look: {errors.decode().strip().splitlines()[-1]}")


def _busy(stacks: Path) -> Iterator[tuple[list[str], int]]:
    for line in stacks.read_text(encoding="utf-8").splitlines():
        frames, _, count = line.rpartition(" ")
        found = frames.split(";")
        if not _IDLE.search(found[-1]):
            yield found, int(count)


def _part(frames: list[str]) -> str:
    for parts in (_OURS, _LIBRARIES):
        for frame in reversed(frames):
            for part, pattern in parts:
                if re.search(pattern, frame):
                    return part
    return "the rest of the process"


def _section(found: dict[str, dict[str, float]], sizes: Sizes) -> Section:
    parts = sorted(set().union(*found.values()), key=lambda part: -found[PAYORDER].get(part, 0))
    rows = [[part, *(f"{each[part]:.3f}" if part in each else "" for each in found.values())] for part in parts]
    totals = ["together", *(f"{sum(each.values()):.3f}" for each in found.values())]
    return Section(
        name="profile",
        title="Where the server's processor time goes",
        about=f"Milliseconds of a PayOrder, by py-spy, {sizes.callers} callers. Processor latency 0.",
        columns=("part", *found),
        rows=[*rows, totals],
        data=found,
    )
