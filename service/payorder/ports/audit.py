"""What the audit log tells, and what is told to it of calls that change no order."""

from dataclasses import dataclass
from typing import Literal

from payorder.domain.origin import Origin


@dataclass(frozen=True, slots=True)
class CallRecord:
    """A read by an administrator, a refused call, or a change of a webhook.

    `detail` is what was asked for, or why it was refused.
    """

    method: str
    outcome: Literal["done", "refused"]
    origin: Origin
    detail: str | None
