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
_AHEAD_FIRST, _AHEAD_MAX = 8, 16
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
# What one caller's lanes may have of all that is sent at once, divided in the same way, and its prompt ones of what is
# claimed beforehand, before none of them gets more than its width.
_SENT_OF_CALLER, _HELD_OF_CALLER = 1 / 2, 1 / 8


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

    def room(self, *, may_go_ahead: bool = True) -> int:
        """How many deliveries it wants to have claimed; none as long as it has more than half of that."""
        wanted = self.width * self.ahead if may_go_ahead and self.standing is Standing.PROMPT else self.width
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
        self._of_caller_max = sends_max * _SENT_OF_CALLER
        self._of_callers: dict[str, _Share] = {}
        self._lanes: OrderedDict[str, Lane] = OrderedDict()
        self._turns: deque[Lane] = deque()
        # Those whose turn it was when there was no room: for their standing, or for their caller's lanes of it.
        self._kept_back: dict[tuple[str | None, Standing], deque[Lane]] = {}
        # Callers of whom something has ended since.
        self._relieved: set[str] = set()
        # Behind which lane to go on, because a claim was full there.
        self._after = ""

    def rooms(self, *, lease_seconds: float) -> Rooms:
        held, of_callers = _Share(self._held_max, _OF_HELD), Counter[str]()
        for lane in self._lanes.values():
            held.taken[lane.standing] += lane.held
            of_callers[lane.caller] += lane.held if lane.standing is Standing.PROMPT else 0
        may = [held.has_room(standing) for standing in _STANDINGS]
        ahead_max = self._held_max * _HELD_OF_CALLER
        return Rooms(
            at_most=min(int(self._held_max * _CLAIMED_OF_HELD), self._held_max - sum(held.taken)),
            # What is unknown is in doubt.
            each=_WIDTH_FIRST if may[Standing.DOUBTFUL] else 0,
            busy={
                name: lane.room(may_go_ahead=of_callers[lane.caller] < ahead_max) if may[lane.standing] else 0
                for name, lane in self._lanes.items()
            },
            # Whoever gets nothing now is not passed over for that.
            after=self._after if all(may) else "",
            lease_seconds=lease_seconds,
        )

    def add(self, claimed: list[Claimed], rooms: Rooms) -> bool:
        """What was claimed for `rooms`. Whether there may be more to be claimed at once."""
        is_full = len(claimed) == rooms.at_most
        if rooms.after == self._after:
            self._after = max(each.dispatch.lane for each in claimed) if is_full else ""
        got: Counter[str] = Counter()
        for each in claimed:
            self._lane_of(each.dispatch).waiting.append(each)
            got[each.dispatch.lane] += 1
        for name in dict.fromkeys((*got, *rooms.busy)):
            if name in self._lanes:
                self._fill(self._lanes[name], got[name], rooms.busy.get(name, rooms.each), is_full)
        return is_full or rooms.after != ""

    def _fill(self, lane: Lane, count: int, room: int, is_full: bool) -> None:
        lane.may_have_more = is_full or count >= room
        if count and count >= room:
            lane.filled(lane.waiting[-1].at)
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
        while self._turns or self._let_in():
            lane = self._turns.popleft()
            lane.place = None
            if lane.may_send and not self._keep_back(lane):
                yield self._begin(lane)
                self._queue(lane)
        self._relieved.clear()

    def _keep_back(self, lane: Lane) -> bool:
        """Where it has no room, if so."""
        for whose, share in ((lane.caller, self._of_callers.get(lane.caller)), (None, self._all)):
            if share is not None and not share.has_room(lane.standing):
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
        self._relieved.add(lane.caller)
        # It may be of another standing now, and have room.
        if lane.place is not None and lane.place is not self._turns:
            lane.place.remove(lane)
            lane.place = None
        self._queue(lane)

    def _let_in(self) -> bool:
        """One that was kept back and has room now, if there is one: where something has ended, or for all."""
        shares = ((whose, self._of_callers.get(whose)) for whose in self._relieved)
        return any(
            self._let_in_one((whose, standing), share)
            for whose, share in ((None, self._all), *shares)
            for standing in _STANDINGS
        )

    def _let_in_one(self, kept: tuple[str | None, Standing], share: _Share | None) -> bool:
        """The first that has something to send, which may have been given back, and has room everywhere."""
        kept_back, has_found = self._kept_back.get(kept, deque()), False
        while kept_back and not has_found and (share is None or share.has_room(kept[1])):
            lane = kept_back.popleft()
            lane.place = None
            if has_found := lane.may_send and not self._keep_back(lane):
                self._queue(lane)
        if not kept_back:
            self._kept_back.pop(kept, None)
        return has_found

    def _queue(self, lane: Lane) -> None:
        """Whoever has nothing under way goes first: turns are as long as receivers take."""
        if lane.place is None and lane.may_send:
            lane.place = self._turns
            (self._turns.append if lane.sending else self._turns.appendleft)(lane)

    def _put(self, lane: Lane, kept_back: deque[Lane]) -> None:
        lane.place = kept_back
        kept_back.append(lane)

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
