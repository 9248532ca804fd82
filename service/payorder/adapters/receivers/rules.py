"""What an operator decides about receivers, and what nobody does."""

from dataclasses import dataclass

from payorder.adapters.receivers.addresses import Network


@dataclass(frozen=True, slots=True)
class Rules:
    """`allows_http` besides https; `ports` None means any; `networks` are open besides the internet."""

    allows_http: bool
    ports: frozenset[int] | None
    networks: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """`connect_seconds` is for the name, the connection and TLS together, `total_seconds` for all of it.

    A connection is used again until it is `connection_seconds` old: its address was vetted when it was made.
    """

    connect_seconds: float
    total_seconds: float
    connection_seconds: float


LIMITS = Limits(connect_seconds=3.0, total_seconds=15.0, connection_seconds=60.0)
