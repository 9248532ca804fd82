"""What time it is."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The time now, aware, UTC."""
        ...

    def uptime_seconds(self) -> float:
        """Seconds since some fixed moment, those in which the machine slept included."""
        ...
