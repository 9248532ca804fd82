"""The machine's clock and a source of ids."""

import secrets
import sys
import time
from datetime import UTC, datetime

from payorder.domain.secret import Secret
from payorder.domain.webhook_signature import secret_of

if sys.version_info >= (3, 14):
    from uuid import uuid7
else:
    from uuid_utils.compat import uuid7


class SystemClock:
    """Implements payorder.ports.clock.Clock, in whole milliseconds: what is stored is what was answered."""

    def now(self) -> datetime:
        now = datetime.now(UTC)
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def uptime_seconds(self) -> float:
        # Where there is no CLOCK_BOOTTIME (macOS), the monotonic clock does not count sleep.
        return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def new_id() -> str:
    """A UUIDv7 (RFC 9562): unique, and in the order of its making."""
    return str(uuid7())


def new_webhook_secret() -> Secret:
    """Of 32 random bytes (Standard Webhooks)."""
    return secret_of(secrets.token_bytes(32))
