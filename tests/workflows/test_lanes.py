"""Whose delivery is next: what each kind of receiver gets of all that is sent at once, and that nobody is forgotten."""

from collections import Counter
from collections.abc import Sequence
from random import Random

import pytest

from payorder.domain.webhook import Dispatch
from payorder.workflows.lanes import Claimed, Lanes, Send, Standing

SENDS_MAX = 64


def claimed(lane: str, *, caller: str = "alice", is_failing: bool = False) -> Claimed:
    dispatch = Dispatch(
        delivery_id="delivery",
        endpoint_id=lane,
        caller=caller,
        lane=lane,
        claim=1,
        number=1,
        url="",
        event_id="event",
        body=b"",
        sealed_secrets=(b"sealed",),
        is_failing=is_failing,
    )
    return Claimed(dispatch, 0.0)


def fill(lanes: Lanes, some: Sequence[Claimed]) -> list[Send]:
    """All of it was claimed; what is sent of it."""
    lanes.add(list(some), lanes.rooms(lease_seconds=60))
    return list(lanes.start())


def end(lanes: Lanes, send: Send, *, is_delivered: bool = True, seconds: float = 0.1) -> list[Send]:
    """What is sent in its place."""
    send.lane.learn(is_delivered=is_delivered, seconds=seconds)
    lanes.done(send)
    return list(lanes.start())


def prove(lanes: Lanes, name: str, caller: str, times: int = 40) -> None:
    """Of a receiver that is prompt, as wide as it gets."""
    for _ in range(times):
        for send in fill(lanes, [claimed(name, caller=caller)]):
            assert [] == end(lanes, send)


def test_a_lane_begins_narrow_widens_with_what_is_delivered_and_is_halved_by_a_failure() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    sending = fill(lanes, [claimed("one")] * 100)
    assert 4 == len(sending)
    sending += end(lanes, sending.pop(0))
    assert 5 == len(sending)
    sending += end(lanes, sending.pop(0), is_delivered=False)
    assert (4, 2) == (len(sending), sending[0].lane.width)


def test_who_answers_late_is_sent_four_at_a_time() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    sending = fill(lanes, [claimed("slow")] * 100)
    for _ in range(20):
        sending += end(lanes, sending.pop(0), seconds=10)
    assert (4, Standing.DOUBTFUL) == (len(sending), sending[0].lane.standing)


def test_receivers_of_which_nothing_is_known_leave_a_quarter_to_the_prompt() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    prove(lanes, "prompt", "bob")
    hostile = [claimed(f"{caller}{number}", caller=caller) for caller in "mnop" for number in range(20)]
    assert SENDS_MAX * 3 // 4 == len(fill(lanes, hostile))
    assert SENDS_MAX // 4 == len(fill(lanes, [claimed("prompt", caller="bob")] * 100))


def test_receivers_that_fail_leave_a_quarter_to_those_of_which_nothing_is_known() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    failing = [
        claimed(f"{caller}{number}", caller=caller, is_failing=True) for caller in "mnop" for number in range(20)
    ]
    assert SENDS_MAX // 2 == len(fill(lanes, failing))
    assert SENDS_MAX // 4 == len(fill(lanes, [claimed(f"new{number}", caller="bob") for number in range(30)]))


def test_one_caller_leaves_half_to_others_and_of_the_other_half_a_quarter_to_what_is_prompt_of_its_own() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    prove(lanes, "prompt", "alice")
    assert SENDS_MAX * 3 // 8 == len(fill(lanes, [claimed(f"new{number}") for number in range(100)]))
    assert SENDS_MAX // 8 == len(fill(lanes, [claimed("prompt")] * 100))
    others = [claimed(f"bob{number}", caller="bob") for number in range(100)]
    assert SENDS_MAX * 3 // 8 == len(fill(lanes, others))


def test_what_hangs_does_not_keep_others_from_being_claimed() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    prove(lanes, "prompt", "bob")
    number = 0
    while (rooms := lanes.rooms(lease_seconds=60)).each:
        hanging = [claimed(f"hanging{number}/{index}", caller=f"m{index % 9}") for index in range(rooms.at_most)]
        fill(lanes, hanging)
        number += 1
    assert rooms.at_most > 0
    assert {"prompt"} == {name for name, room in rooms.busy.items() if room}


def test_nobody_is_passed_over_because_there_was_no_room_for_a_while() -> None:
    """As a database claims: lanes in the order of their names, each as much as it has room for."""
    lanes, names = Lanes(sends_max=SENDS_MAX), [f"lane{number:04}" for number in range(900)]
    served, sending = set[str](), list[Send]()
    for _ in range(400):
        rooms = lanes.rooms(lease_seconds=60)
        wanted = [name for name in names if name > rooms.after for _ in range(rooms.busy.get(name, rooms.each))]
        lanes.add([claimed(name, caller=name[:6]) for name in wanted[: rooms.at_most]], rooms)
        sending += lanes.start()
        served |= {send.claimed.dispatch.lane for send in sending}
        # All of them answer so late that none is ever prompt.
        for send in sending[:20]:
            sending += end(lanes, send, seconds=14)
        sending = [send for send in sending[20:] if send.lane.sending]
    assert set(names) == served


def test_what_is_claimed_for_one_caller_leaves_room_for_others_and_for_its_own() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    for number in range(20):
        prove(lanes, f"alice{number}", "alice")
    prove(lanes, "bob", "bob")
    # Whatever the others could have, each may have as much as it can take.
    rooms = lanes.rooms(lease_seconds=60)
    assert [32 * 8] * 21 == list(rooms.busy.values())
    fill(lanes, [claimed("alice0")] * SENDS_MAX)
    rooms = lanes.rooms(lease_seconds=60)
    assert (0, 32, 32 * 8) == (rooms.busy["alice0"], rooms.busy["alice1"], rooms.busy["bob"])


def test_a_lane_that_drains_asks_again_though_it_was_offered_nothing_last() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    sending = fill(lanes, [claimed("one")] * 4)
    assert 0 == lanes.rooms(lease_seconds=60).busy["one"]
    lanes.add([], lanes.rooms(lease_seconds=60))
    assert sending[0].lane.may_have_more
    for send in sending:
        end(lanes, send, seconds=10)
    lanes.add([], lanes.rooms(lease_seconds=60))
    assert not sending[0].lane.may_have_more


def test_who_has_nothing_under_way_goes_first() -> None:
    lanes = Lanes(sends_max=8)
    prove(lanes, "prompt", "bob")
    busy = fill(lanes, [claimed("busy", caller="bob")] * 40)
    assert 3 == len(busy)
    assert ["prompt"] == [send.claimed.dispatch.lane for send in fill(lanes, [claimed("prompt", caller="bob")])]


def test_the_prompt_are_remembered_longest() -> None:
    lanes = Lanes(sends_max=SENDS_MAX)
    prove(lanes, "prompt", "bob", times=1)
    for first in range(0, 3000, 20):
        for send in fill(lanes, [claimed(f"away{first + number}") for number in range(20)]):
            assert [] == end(lanes, send, is_delivered=False)
    lanes.forget_idle()
    busy = lanes.rooms(lease_seconds=60).busy
    assert "prompt" in busy
    assert len(busy) < 2000


@pytest.mark.parametrize("seed", range(20))
def test_whatever_ends_when_every_share_is_kept_and_everything_is_sent(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - a test's
    lanes, sending, sent, added = Lanes(sends_max=SENDS_MAX), list[Send](), 0, 0
    while added < 2000 or sending:
        # As when a lane fails: then it counts as sent here.
        if sending and random.random() < 0.02:
            sent += len(lanes.give_back(random.choice(sending).lane))
        if added < 2000 and random.random() < 0.1:
            caller = f"caller{random.randrange(4)}"
            # Many to one, or one to many.
            count = random.randrange(1, 60)
            width = random.choice((1, count))
            names = [f"{caller}/{random.randrange(60)}" for _ in range(width)]
            some = [claimed(name, caller=caller) for name in names * (count // width)]
            added += len(some)
            new = fill(lanes, some)
        elif sending:
            ended = sending.pop(random.randrange(len(sending)))
            good = 0.97 if seed % 2 else 0.6
            new = end(lanes, ended, is_delivered=random.random() < good, seconds=random.choice((0.1, 0.1, 10.0)))
        else:
            continue
        sending += new
        sent += len(new)
        assert_shares(sending)
        assert_nobody_waits_who_need_not(lanes)
    assert added == sent


def assert_nobody_waits_who_need_not(lanes: Lanes) -> None:
    for lane in lanes._lanes.values():
        has_room = lanes._all.has_room(lane.standing) and lanes._of_caller(lane).has_room(lane.standing)
        assert not (lane.may_send and has_room)


def assert_shares(sending: Sequence[Send]) -> None:
    by_standing = Counter(send.standing for send in sending)
    failing, doubtful = by_standing[Standing.FAILING], by_standing[Standing.DOUBTFUL]
    assert failing <= SENDS_MAX / 2
    assert failing + doubtful <= SENDS_MAX * 3 / 4
    assert len(sending) <= SENDS_MAX
    assert all(count <= SENDS_MAX / 2 for count in Counter(send.lane.caller for send in sending).values())
    assert all(send.lane.sending >= 0 for send in sending)
