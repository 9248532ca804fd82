"""Whose delivery is attempted next: every lane has its turn, and nobody waits behind a slow one.

A lane is an endpoint, or all callbacks of a caller. It is as wide as its receiver has earned: it begins narrow, widens
with each delivery that is prompt and is halved by each failure. What receivers that fail, or of which nothing is known
yet, can take of all attempts that are made at once is bounded, and so is what one caller can.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from payorder.domain.webhook import Dispatch
from payorder.ports.outbox import Rooms

_WIDTH_FIRST = 4
_WIDTH_MAX = 32
# Who answers later than this may do so, but four at a time.
_PROMPT_SECONDS = 2.0
# A lane that is prompt has some times its width claimed beforehand, so that it need not wait for the database: more of
# it as long as a claim lasts less than a second, less if it lasts longer than five, because leases end.
_AHEAD_FIRST, _AHEAD_MAX = 8, 64
_TOO_SOON_SECONDS, _TOO_LATE_SECONDS = 1.0, 5.0
_HELD_MAX_OF_SENDS = 8
_LANES_MAX = 2048


class Standing(IntEnum):
    """What is known of a receiver, the worst first."""

    FAILING = 0
    DOUBTFUL = 1
    PROMPT = 2


_STANDINGS = tuple(Standing)
# What lanes of a standing, and of worse ones, may have together of all that is sent at once, and of all that is claimed
# beforehand. A claim brings up to a quarter of the latter, so that a quarter of it is always left for the prompt.
_OF_SENT = {Standing.FAILING: 1 / 2, Standing.DOUBTFUL: 3 / 4, Standing.PROMPT: 1}
_OF_HELD = {Standing.FAILING: 1 / 4, Standing.DOUBTFUL: 1 / 2, Standing.PROMPT: 1}
_CLAIMED_OF_HELD = 1 / 4
# What one caller's lanes may have of all that is sent at once, divided in the same way.
_OF_CALLER = 1 / 2


@dataclass(frozen=True, slots=True)
class Claimed:
    """`at`: since when, in seconds of uptime. The lease runs from then on."""

    dispatch: Dispatch
    at: float


@dataclass(slots=True, eq=False)
class Lane:
    """`may_have_more`: the latest claim left some. `place`: the queue in which it waits for its turn, if it does.

    `ahead`: how many times its width is claimed for it; `filled_at`: when that was last done, in seconds of uptime.
    """

    caller: str
    standing: Standing = Standing.DOUBTFUL
    width: int = _WIDTH_FIRST
    ahead: int = _AHEAD_FIRST
    filled_at: float | None = None
    sending: int = 0
    waiting: deque[Claimed] = field(default_factory=deque)
    may_have_more: bool = False
    place: "deque[Lane] | None" = None

    @property
    def held(self) -> int:
        return self.sending + len(self.waiting)

    @property
    def may_send(self) -> bool:
        return bool(self.waiting) and self.sending < self.width

    @property
    def room(self) -> int:
        """How many deliveries it wants to have claimed; none as long as it has half of that."""
        wanted = self.width * self.ahead if self.standing is Standing.PROMPT else self.width
        return wanted - self.held if self.held * 2 <= wanted else 0

    def filled(self, at: float) -> None:
        """It was claimed as much as was wanted."""
        lasted_seconds = at - (self.filled_at or at)
        if lasted_seconds < _TOO_SOON_SECONDS:
            self.ahead = min(self.ahead * 2, _AHEAD_MAX)
        elif lasted_seconds > _TOO_LATE_SECONDS:
            self.ahead = max(self.ahead // 2, 1)
        self.filled_at = at

    def learn(self, *, is_delivered: bool, seconds: float) -> None:
        """What an attempt has shown, which took so long."""
        if not is_delivered:
            self.width = max(self.width // 2, 1)
            self.standing = Standing.FAILING if self.width == 1 else Standing.DOUBTFUL
        elif seconds <= _PROMPT_SECONDS:
            self.width = min(self.width + 1, _WIDTH_MAX)
            self.standing = Standing.PROMPT
        else:
            self.width = min(self.width + 1, _WIDTH_FIRST)
            self.standing = Standing.DOUBTFUL


@dataclass(frozen=True, slots=True)
class Send:
    """An attempt that is being made; it counts as what its lane was when it began."""

    lane: Lane
    claimed: Claimed
    standing: Standing


class _Share:
    """Of what is sent at once, or claimed beforehand: how much there is of each standing, and how much there may be."""

    def __init__(self, at_most: float, parts: Mapping[Standing, float]) -> None:
        self._most = [max(1, int(at_most * parts[standing])) for standing in _STANDINGS]
        self.taken = [0] * len(_STANDINGS)

    def has_room(self, standing: Standing) -> bool:
        """Beside all of the same standing and of worse ones, and so on upwards."""
        taken = 0
        for each, count in enumerate(self.taken):
            taken += count
            if each >= standing and taken >= self._most[each]:
                return False
        return True


class Lanes:
    """`sends_max` attempts at once."""

    def __init__(self, *, sends_max: int) -> None:
        self._held_max = sends_max * _HELD_MAX_OF_SENDS
        self._all = _Share(sends_max, _OF_SENT)
        self._of_caller_max = sends_max * _OF_CALLER
        self._of_callers: dict[str, _Share] = {}
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._turns: deque[Lane] = deque()
        # Those whose turn it was when there was no room: for their standing, or for their caller's lanes of it.
        self._kept_back: dict[tuple[str | None, Standing], deque[Lane]] = {}

    def rooms(self, *, after: str, lease_seconds: float) -> Rooms:
        held = _Share(self._held_max, _OF_HELD)
        for lane in self._lanes.values():
            held.taken[lane.standing] += lane.held
        may = [held.has_room(standing) for standing in _STANDINGS]
        return Rooms(
            at_most=min(int(self._held_max * _CLAIMED_OF_HELD), self._held_max - sum(held.taken)),
            # What is unknown is in doubt.
            each=_WIDTH_FIRST if may[Standing.DOUBTFUL] else 0,
            busy={name: lane.room if may[lane.standing] else 0 for name, lane in self._lanes.items()},
            after=after,
            lease_seconds=lease_seconds,
        )

    def add(self, claimed: list[Claimed], rooms: Rooms) -> None:
        """What was claimed for `rooms`."""
        is_full = len(claimed) == rooms.at_most
        got: Counter[str] = Counter()
        for each in claimed:
            self._lane_of(each.dispatch).waiting.append(each)
            got[each.dispatch.lane] += 1
        for name, count in got.items():
            lane = self._lanes[name]
            lane.may_have_more = is_full or count >= rooms.busy.get(name, rooms.each)
            if lane.may_have_more:
                lane.filled(claimed[0].at)
            self._queue(lane)

    def _lane_of(self, dispatch: Dispatch) -> Lane:
        lane = self._lanes.get(dispatch.lane)
        if lane is None:
            lane = self._lanes[dispatch.lane] = Lane(dispatch.caller)
            if dispatch.is_failing:
                lane.width, lane.standing = 1, Standing.FAILING
        self._lanes.move_to_end(dispatch.lane)
        return lane

    def start(self) -> Iterator[Send]:
        """What may be sent now, in turn; each is being sent from here on, until it is `done`."""
        while self._turns:
            lane = self._turns.popleft()
            lane.place = None
            if lane.may_send and not self._keep_back(lane):
                yield self._begin(lane)
                self._queue(lane)

    def _keep_back(self, lane: Lane) -> bool:
        for whose, share in ((None, self._all), (lane.caller, self._of_caller(lane))):
            if not share.has_room(lane.standing):
                self._put(lane, self._kept_back.setdefault((whose, lane.standing), deque()))
                return True
        return False

    def _begin(self, lane: Lane) -> Send:
        lane.sending += 1
        self._all.taken[lane.standing] += 1
        self._of_caller(lane).taken[lane.standing] += 1
        return Send(lane, lane.waiting.popleft(), lane.standing)

    def done(self, send: Send) -> None:
        lane, share = send.lane, self._of_caller(send.lane)
        lane.sending -= 1
        for each in (self._all, share):
            each.taken[send.standing] -= 1
        if not any(share.taken):
            del self._of_callers[lane.caller]
        self._let_in(lane.caller, share)
        # It may be of another standing now, and have room.
        if lane.place is not None and lane.place is not self._turns:
            lane.place.remove(lane)
            lane.place = None
        self._queue(lane)

    def _let_in(self, caller: str, share: _Share) -> None:
        """One of each standing for which there is room now."""
        for whose, room in ((None, self._all), (caller, share)):
            for standing in _STANDINGS:
                kept_back = self._kept_back.get((whose, standing))
                if kept_back is not None and room.has_room(standing):
                    self._let_in_one(kept_back)
                    if not kept_back:
                        del self._kept_back[whose, standing]

    def _let_in_one(self, kept_back: "deque[Lane]") -> None:
        """What it had to send may have been given back."""
        while kept_back:
            lane = kept_back.popleft()
            lane.place = None
            if lane.may_send:
                self._queue(lane)
                return

    def _queue(self, lane: Lane) -> None:
        if lane.place is None and lane.may_send:
            self._put(lane, self._turns)

    def _put(self, lane: Lane, queue: deque[Lane]) -> None:
        lane.place = queue
        queue.append(lane)

    def _of_caller(self, lane: Lane) -> _Share:
        share = self._of_callers.get(lane.caller)
        if share is None:
            share = self._of_callers[lane.caller] = _Share(self._of_caller_max, _OF_SENT)
        return share

    def give_back(self, lane: Lane) -> list[Claimed]:
        """All that waits in the lane."""
        waiting = list(lane.waiting)
        lane.waiting.clear()
        return waiting

    def give_back_all(self) -> list[Claimed]:
        return [each for lane in self._lanes.values() for each in self.give_back(lane)]

    def forget_idle(self) -> None:
        """What was learned of those that have nothing to do, when it is too much: of the prompt last."""
        if len(self._lanes) <= _LANES_MAX:
            return
        idle = [name for name, lane in self._lanes.items() if not lane.held]
        idle.sort(key=lambda name: self._lanes[name].standing is Standing.PROMPT)
        for name in idle[: len(self._lanes) - _LANES_MAX // 2]:
            del self._lanes[name]
