"""How long and how large a run is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """`seconds` of each measured run, of which there are `repeats` of each kind, in turn.

    `callers` wait for one answer each in the saturated runs, `in_flight` with a slow processor.
    `samples` are the times of one kind that are compared with those of another.
    `relayed` events go to a receiver, `relays` times. For `beside_seconds` one that answers is measured beside hostile
    ones, beside one for which `backlog` deliveries are due, and beside as many `callbacks` that wait for a retry.
    `history_few` and `history_many` are orders in the tables before the history section measures.
    """

    seconds: float
    repeats: int
    callers: int
    in_flight: int
    history_few: int
    history_many: int
    starts: int
    samples: int
    relayed: int
    relays: int
    beside_seconds: float
    backlog: int
    callbacks: int
    paid_per_second: int


FULL = Sizes(
    seconds=10,
    repeats=5,
    callers=32,
    in_flight=2200,
    history_few=10_000,
    history_many=10_000_000,
    starts=5,
    samples=10_000,
    relayed=50_000,
    relays=3,
    beside_seconds=60,
    backlog=100_000,
    callbacks=50_000,
    paid_per_second=150,
)  # fmt: skip - a table
# Shows that everything works. Its figures are no measurements.
QUICK = Sizes(
    seconds=2,
    repeats=1,
    callers=32,
    in_flight=2200,
    history_few=10_000,
    history_many=100_000,
    starts=1,
    samples=1_000,
    relayed=5_000,
    relays=1,
    beside_seconds=5,
    backlog=5_000,
    callbacks=2_000,
    paid_per_second=150,
)
