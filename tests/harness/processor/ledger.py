"""The processor's own record: one JSON line for each fact, on disk before anybody is told of it."""

import json
import os
import time
from pathlib import Path


class Ledger:
    """Append-only. Holds no card data."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, event: str, **facts: object) -> None:
        line = json.dumps({"at": time.time_ns() // 1_000_000, "event": event, **facts}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")
        os.fdatasync(self._file)
