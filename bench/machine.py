"""What was measured on what."""

import asyncio
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from payorder.local import envoy, postgres

_LIBRARIES = ("grpcio", "asyncpg", "sqlalchemy", "aiosqlite", "protobuf", "uvloop", "fastapi", "uvicorn", "pydantic")


async def describe() -> dict[str, str]:
    commit = await _output("git", "describe", "--always", "--dirty")
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit,
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": f"{postgres.VERSION}, its default settings, over a Unix socket",
        "envoy": (await _output(str(envoy.binary()), "--version")).partition("version: ")[2].split("/")[1],
        **{name: version(name) for name in _LIBRARIES},
    }


def _processor() -> str:
    if not Path("/proc/cpuinfo").exists():
        return platform.processor()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


async def _output(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode().strip()
