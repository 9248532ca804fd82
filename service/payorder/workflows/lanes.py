"""Whose delivery is attempted next: every endpoint has a lane of its own, and nobody waits behind a slow one.

A lane is as wide as its endpoint has earned: it begins narrow, widens with each delivery and is halved by each failure.
So an endpoint that hangs holds few of the attempts that are made at once, and one that answers gets what it can take.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from payorder.domain.webhook import Dispatch
from payorder.ports.outbox import Rooms

_WIDTH_FIRST = 4
_WIDTH_MAX = 32
# An endpoint that answers has some times its width claimed beforehand, so that it need not wait for the database: more
# of it as long as a claim lasts less than a second, less if it lasts longer than five, because leases end.
_AHEAD_FIRST, _AHEAD_MAX = 8, 64
_TOO_SOON_SECONDS, _TOO_LATE_SECONDS = 1.0, 5.0
_HELD_MAX_OF_SENDS = 8
_IDLE_LANES_MAX = 2048


@dataclass(frozen=True, slots=True)
class Claimed:
    """`at`: since when, in seconds of uptime. The lease runs from then on."""

    dispatch: Dispatch
    at: float


@dataclass(slots=True)
class Lane:
    """Of one endpoint. `is_proven`: its latest attempt was delivered. `may_have_more`: the latest claim left some.

    `ahead`: how many times its width is claimed for it; `filled_at`: when that was last done, in seconds of uptime.
    """

    width: int = _WIDTH_FIRST
    ahead: int = _AHEAD_FIRST
    filled_at: float | None = None
    sending: int = 0
    waiting: deque[Claimed] = field(default_factory=deque)
    is_proven: bool = False
    may_have_more: bool = False

    @property
    def is_failing(self) -> bool:
        return self.width == 1

    @property
    def room(self) -> int:
        """How many deliveries it wants to have claimed; none as long as it has half of that."""
        wanted = self.width * self.ahead if self.is_proven else self.width
        held = self.sending + len(self.waiting)
        return wanted - held if held * 2 <= wanted else 0

    def filled(self, at: float) -> None:
        """It was claimed as much as was wanted."""
        lasted_seconds = at - (self.filled_at or at)
        if lasted_seconds < _TOO_SOON_SECONDS:
            self.ahead = min(self.ahead * 2, _AHEAD_MAX)
        elif lasted_seconds > _TOO_LATE_SECONDS:
            self.ahead = max(self.ahead // 2, 1)
        self.filled_at = at

    def learn(self, *, is_delivered: bool) -> None:
        self.width = min(self.width + 1, _WIDTH_MAX) if is_delivered else max(self.width // 2, 1)
        self.is_proven = is_delivered


class Lanes:
    """`sends_max` attempts at once. Of these, lanes that fail get what is below a half, and new ones three quarters."""

    def __init__(self, *, sends_max: int) -> None:
        self._sends_max = sends_max
        self._held_max = sends_max * _HELD_MAX_OF_SENDS
        self._held = 0
        self._sending = 0
        self._lanes: dict[str, Lane] = {}
        self._with_waiting: deque[Lane] = deque()

    def rooms(self, *, at_most: int, after: str, lease_seconds: float) -> Rooms:
        return Rooms(
            at_most=min(at_most, self._held_max - self._held),
            each=_WIDTH_FIRST,
            busy={endpoint_id: lane.room for endpoint_id, lane in self._lanes.items()},
            after=after,
            lease_seconds=lease_seconds,
        )

    def add(self, claimed: list[Claimed], rooms: Rooms) -> None:
        """What was claimed for `rooms`."""
        is_full = len(claimed) == rooms.at_most
        got: dict[str, int] = {}
        for each in claimed:
            endpoint_id = each.dispatch.endpoint_id
            lane = self._lanes.get(endpoint_id) or self._new_lane(each.dispatch)
            if not lane.waiting:
                self._with_waiting.append(lane)
            lane.waiting.append(each)
            got[endpoint_id] = got.get(endpoint_id, 0) + 1
        self._held += len(claimed)
        for endpoint_id, count in got.items():
            lane = self._lanes[endpoint_id]
            lane.may_have_more = is_full or count >= rooms.busy.get(endpoint_id, rooms.each)
            if lane.may_have_more:
                lane.filled(claimed[0].at)

    def _new_lane(self, dispatch: Dispatch) -> Lane:
        lane = self._lanes[dispatch.endpoint_id] = Lane(1 if dispatch.is_failing else _WIDTH_FIRST)
        return lane

    def start(self) -> Iterator[tuple[Lane, Claimed]]:
        """What may be sent now, in turn; each is being sent from here on, until it is `done`."""
        has_started = True
        while has_started:
            has_started = False
            for _ in range(len(self._with_waiting)):
                lane = self._with_waiting.popleft()
                if lane.waiting and lane.sending < lane.width and self._sending < self._limit(lane):
                    lane.sending += 1
                    self._sending += 1
                    has_started = True
                    yield lane, lane.waiting.popleft()
                if lane.waiting:
                    self._with_waiting.append(lane)

    def done(self, lane: Lane) -> None:
        lane.sending -= 1
        self._sending -= 1
        self._held -= 1

    def give_back(self, lane: Lane) -> list[Claimed]:
        """All that waits in the lane."""
        waiting = list(lane.waiting)
        lane.waiting.clear()
        self._held -= len(waiting)
        return waiting

    def give_back_all(self) -> list[Claimed]:
        return [each for lane in self._lanes.values() for each in self.give_back(lane)]

    def forget_idle(self) -> None:
        """What was learned of endpoints that have nothing to do, when it is too much."""
        if len(self._lanes) > _IDLE_LANES_MAX:
            self._lanes = {id_: lane for id_, lane in self._lanes.items() if lane.sending or lane.waiting}

    def _limit(self, lane: Lane) -> float:
        if lane.is_failing:
            return self._sends_max / 2
        return self._sends_max if lane.is_proven else self._sends_max * 3 / 4
