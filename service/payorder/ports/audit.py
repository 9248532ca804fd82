"""What the audit log tells, and what is told to it of calls that change nothing."""

from dataclasses import dataclass
from typing import Literal

from payorder.domain.origin import Origin


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A read by an administrator, or a refused call: `detail` is what was asked for, or why it was refused."""

    method: str
    outcome: Literal["done", "refused"]
    origin: Origin
    detail: str | None
