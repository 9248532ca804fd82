"""What everything else stands on."""

from dataclasses import dataclass

from payorder.adapters.database.engine import Database
from payorder.config import Settings
from payorder.observability.logging import CallLog
from payorder.ports.clock import Clock


@dataclass(frozen=True, slots=True)
class Ground:
    settings: Settings
    database: Database
    clock: Clock
    log: CallLog
