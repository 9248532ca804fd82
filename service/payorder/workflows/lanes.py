"""Whose delivery is attempted next: every endpoint has a lane of its own, and nobody waits behind a slow one.

A lane is as wide as its endpoint has earned: it begins narrow, widens with each delivery and is halved by each failure.
So an endpoint that hangs holds few of the attempts that are made at once, and one that answers gets what it can take.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from payorder.domain.webhook import Dispatch

_WIDTH_FIRST = 4
_WIDTH_MAX = 32
# An endpoint that answers has so many times its width claimed beforehand, so that it need not wait for the database.
_AHEAD = 8
_IDLE_LANES_MAX = 2048


@dataclass(frozen=True, slots=True)
class Claimed:
    """`at`: since when, in seconds of uptime. The lease runs from then on."""

    dispatch: Dispatch
    at: float


@dataclass(slots=True)
class Lane:
    """Of one endpoint. `is_proven`: its latest attempt was delivered. `may_have_more`: it got all it had room for."""

    width: int = _WIDTH_FIRST
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
        wanted = self.width * _AHEAD if self.is_proven else self.width
        held = self.sending + len(self.waiting)
        return wanted - held if held * 2 <= wanted else 0

    def learn(self, *, is_delivered: bool) -> None:
        self.width = min(self.width + 1, _WIDTH_MAX) if is_delivered else max(self.width // 2, 1)
        self.is_proven = is_delivered


class Lanes:
    """`sends_max` attempts at once. Of these, lanes that fail get what is below a half, and new ones three quarters."""

    def __init__(self, *, sends_max: int) -> None:
        self._sends_max = sends_max
        self._held_max = sends_max * _AHEAD
        self._held = 0
        self._sending = 0
        self._lanes: dict[str, Lane] = {}
        self._with_waiting: deque[Lane] = deque()

    @property
    def room(self) -> int:
        """In all lanes together."""
        return self._held_max - self._held

    @property
    def room_of_new(self) -> int:
        return _WIDTH_FIRST

    def rooms(self) -> dict[str, int]:
        """Of those lanes that there are."""
        return {endpoint_id: lane.room for endpoint_id, lane in self._lanes.items()}

    def add(self, claimed: list[Claimed]) -> None:
        rooms = self.rooms()
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
            self._lanes[endpoint_id].may_have_more = count >= rooms.get(endpoint_id, _WIDTH_FIRST)

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
