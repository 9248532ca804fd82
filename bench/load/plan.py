"""What the load process is asked to do, and what it answers; both cross to it and back as JSON."""

from dataclasses import dataclass
from typing import Literal

Protocol = Literal["grpc", "http1", "http2"]
Method = Literal["PayOrder", "GetOrder", "ListOrders"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Call `method` once for each of `subjects` until `seconds` are over.

    Subjects are order ids, or page tokens. With `rate_per_second` calls are due at random moments of that rate, whether
    or not earlier ones were answered, and are timed from when they were due; without, `callers` call one after another.
    Callers begin spread over `ramp_seconds`. The first `warm_up` subjects are called before the clock starts.
    Calls take the `tokens` in turn. `has_keys`: each call has an idempotency key of its own.
    """

    protocol: Protocol
    address: str
    tokens: list[str]
    subjects: list[str]
    seconds: float
    callers: int
    method: Method = "PayOrder"
    rate_per_second: float | None = None
    ramp_seconds: float = 0.0
    warm_up: int = 50
    has_keys: bool = False
    connections: int = 4


@dataclass(frozen=True, slots=True)
class Result:
    """`calls` includes those of the warm-up: each must have left a payment. The times are those of the others."""

    calls: int
    timed_calls: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def per_second(self) -> float:
        return self.timed_calls / self.seconds
