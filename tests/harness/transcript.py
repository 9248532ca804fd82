"""What clients sent and were told: one JSON line for each call, written when it ends. Holds no card data."""

import base64
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(slots=True)
class Call:
    """One call and its end.

    `request` stands for what was asked: calls with the same key and the same `request` are repetitions.
    `code` is a gRPC status name; "HUNG_UP" when the client left. `answer` is the serialised reply, or the serialised
    Status of an error: the bytes a replay must repeat.
    """

    method: str
    caller: str
    order: str
    key: str | None
    request: str
    amount_minor: int
    began: float = 0.0
    ended: float = 0.0
    code: str = ""
    reason: str | None = None
    payment: str | None = None
    status: str | None = None
    replayed: bool = False
    location: str | None = None
    answer: bytes = field(default=b"", repr=False)

    @property
    def is_answered(self) -> bool:
        """Whether the service itself said how it ended."""
        return self.code == "OK" or self.reason is not None


class Transcript:
    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def write(self, call: Call) -> None:
        line = asdict(call) | {"answer": base64.b64encode(call.answer).decode()}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()

    def note(self, event: str, **facts: object) -> None:
        """What the driver did meanwhile: kills and pauses."""
        line = {"event": event, "at": time.time(), **facts}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
