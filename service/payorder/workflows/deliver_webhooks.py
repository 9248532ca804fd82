"""Send what is due to whoever wants to hear of it, on every replica that sends: at least once, with retries over days.

Leases in the database keep two from sending the same delivery at once; when one dies, another sends it again, with the
same id and the same bytes.
"""

import asyncio
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from random import Random

from payorder.domain.errors import Busy
from payorder.domain.retry_schedule import retry_seconds
from payorder.domain.webhook import DeliveryState, DisabledBecause, Dispatch
from payorder.ports.clock import Clock
from payorder.ports.outbox import DisabledEndpoint, Ended, EventBodies, Outbox
from payorder.ports.receivers import Answer, Receivers
from payorder.workflows.lanes import Claimed, Lanes, Send, Standing
from payorder.workflows.wakeup import Wakeup

_LEASE_SECONDS = 60.0
# An attempt takes up to fifteen seconds, and its end has to be written down.
_SEND_WITHIN_SECONDS = 35.0
_FINISHED_AT_ONCE = 1000
# What ends within so much time is written down together.
_GATHER_SECONDS = 0.01
_AWAY_SECONDS = 0.5
_GONE = 410
_STATUSES = range(100, 600)


class DeliverWebhooks:
    """`on_dead` is told of deliveries that are given up, `on_disabled` of endpoints that get nothing any more.

    `shut_out` are subjects: what they have asked for is not sent any more.
    """

    def __init__(
        self,
        *,
        outbox: Outbox,
        bodies: EventBodies,
        receivers: Receivers,
        shut_out: Container[str],
        sign: Callable[[Dispatch], Mapping[str, str]],
        clock: Clock,
        every_seconds: float,
        sends_max: int,
        on_dead: Callable[[Ended], None],
        on_disabled: Callable[[DisabledEndpoint], None],
        on_fault: Callable[[BaseException], None],
    ) -> None:
        self._outbox = outbox
        self._bodies = bodies
        self._shut_out = shut_out
        self._receivers = receivers
        self._sign = sign
        self._clock = clock
        self._every_seconds = every_seconds
        self._on_dead = on_dead
        self._on_disabled = on_disabled
        self._on_fault = on_fault
        self._lanes = Lanes(sends_max=sends_max)
        self._attempts: set[asyncio.Task[None]] = set()
        self._ended: list[Ended] = []
        self._has_ended = Wakeup()
        self._wakeup = Wakeup()
        self._is_stopping = False
        self._is_drained = False
        self._random = Random()  # noqa: S311 - spreads retries, and guards nothing

    def wake(self) -> None:
        """There is a delivery."""
        self._wakeup.ring()

    def stop(self) -> None:
        """Begin no more. What is being sent is heard out, and what was claimed besides is given back."""
        self._is_stopping = True
        self._wakeup.ring()

    async def run(self) -> None:
        """Until `stop`. A database that is away is asked again at the next round."""
        finishing = asyncio.create_task(self._keep_finishing())
        try:
            while not self._is_stopping:
                began = self._clock.uptime_seconds()
                may_be_more = await self._claim()
                took_seconds = self._clock.uptime_seconds() - began
                if not may_be_more:
                    await self._wakeup.wait(self._every_seconds)
                # However much there is to look through, the database then rests from it for as long.
                await asyncio.sleep(min(took_seconds, self._every_seconds))
            self._give_back(self._lanes.give_back_all())
            while self._attempts:
                await asyncio.wait(self._attempts)
            self._is_drained = True
            self._has_ended.ring()
            await finishing
        finally:
            await _cancel(finishing, *self._attempts)

    async def _claim(self) -> bool:
        """Whether there may be more to be claimed at once."""
        rooms = self._lanes.rooms(lease_seconds=_LEASE_SECONDS)
        if rooms.at_most <= 0:
            return False
        try:
            dispatches = await self._outbox.claim(rooms)
        except (Busy, TimeoutError):
            return False
        except Exception as fault:  # noqa: BLE001 - a bug is reported, and the loop goes on
            self._on_fault(fault)
            return False
        at = self._clock.uptime_seconds()
        self._lanes.forget_idle()
        may_be_more = self._lanes.add([Claimed(dispatch, at) for dispatch in dispatches], rooms)
        self._send_what_may()
        return may_be_more

    def _send_what_may(self) -> None:
        for send in self._lanes.start():
            attempt = asyncio.create_task(self._attempt(send))
            self._attempts.add(attempt)
            attempt.add_done_callback(self._attempted)

    def _attempted(self, attempt: "asyncio.Task[None]") -> None:
        self._attempts.discard(attempt)
        fault = None if attempt.cancelled() else attempt.exception()
        if fault is not None:
            self._on_fault(fault)

    async def _attempt(self, send: Send) -> None:
        lane = send.lane
        try:
            await self._make(send)
            if lane.standing is Standing.FAILING:
                self._give_back(self._lanes.give_back(lane))
        finally:
            self._lanes.done(send)
        if lane.may_have_more and lane.room():
            self._wakeup.ring()
        self._send_what_may()

    async def _make(self, send: Send) -> None:
        dispatch, began = send.claimed.dispatch, self._clock.uptime_seconds()
        if began - send.claimed.at > _SEND_WITHIN_SECONDS:
            self._end(_given_back(dispatch))
        elif dispatch.caller in self._shut_out:
            self._end(_refused(dispatch))
        else:
            ended = self._outcome(dispatch, await self._answer(dispatch))
            send.lane.learn(is_delivered=ended.is_delivered, seconds=self._clock.uptime_seconds() - began)
            self._end(ended)

    async def _answer(self, dispatch: Dispatch) -> Answer:
        """That of the receiver. What goes wrong on our side is reported, and is no answer to them either."""
        try:
            headers, by_service = self._sign(dispatch), dispatch.url_by_service
            return await self._receivers.send(dispatch.url, headers, dispatch.body, by_service=by_service)
        except Exception as fault:  # noqa: BLE001 - one delivery that cannot be sent ends nothing but itself
            self._on_fault(fault)
            return Answer(None)

    def _outcome(self, dispatch: Dispatch, answer: Answer) -> Ended:
        status_class = _class_of(answer.status)
        is_delivered, is_gone = status_class == 2, answer.status == _GONE  # noqa: PLR2004 - 2xx
        # A callback is not sent again to whoever does not want it: it has no endpoint that could be enabled again.
        may_repeat = not is_delivered and not (is_gone and dispatch.is_callback)
        chance = self._random.random()
        retry = retry_seconds(dispatch.number, answer.retry_after_seconds, chance=chance) if may_repeat else None
        state = DeliveryState.PENDING if retry is not None else DeliveryState.DEAD
        return Ended(
            delivery_id=dispatch.delivery_id,
            endpoint_id=dispatch.endpoint_id,
            claim=dispatch.claim,
            state=DeliveryState.DELIVERED if is_delivered else state,
            retry_seconds=retry,
            status_class=status_class,
            disables=DisabledBecause.GONE if is_gone else None,
        )

    def _give_back(self, waiting: list[Claimed]) -> None:
        for claimed in waiting:
            self._end(_given_back(claimed.dispatch))

    def _end(self, ended: Ended) -> None:
        self._ended.append(ended)
        self._has_ended.ring()

    async def _keep_finishing(self) -> None:
        """What ends while some is written down is written down together."""
        while self._ended or not self._is_drained:
            await self._has_ended.wait(self._every_seconds)
            await asyncio.sleep(_GATHER_SECONDS)
            await self._finish()

    async def _finish(self) -> None:
        some, self._ended = self._ended[:_FINISHED_AT_ONCE], self._ended[_FINISHED_AT_ONCE:]
        if not some:
            return
        try:
            await self._write_down(some)
        except (Busy, TimeoutError):
            # Later than the lease, somebody else will have sent it again, and this is not written down any more.
            self._ended = some + self._ended
            await asyncio.sleep(_AWAY_SECONDS)
            return
        if self._ended:
            self._has_ended.ring()

    async def _write_down(self, some: list[Ended]) -> None:
        """What cannot be written down keeps no other back; the lease brings it back."""
        try:
            disabled = await self._outbox.finish(some, self._bodies)
        except (Busy, TimeoutError):
            raise
        except Exception as fault:  # noqa: BLE001 - a bug is reported, and the loop goes on
            self._on_fault(fault)
            for each in some if len(some) > 1 else ():
                await self._write_down([each])
            return
        for endpoint in disabled:
            self._on_disabled(endpoint)
        for ended in some:
            if ended.state is DeliveryState.DEAD:
                self._on_dead(ended)


def _given_back(dispatch: Dispatch, disables: DisabledBecause | None = None) -> Ended:
    return Ended(
        delivery_id=dispatch.delivery_id,
        endpoint_id=dispatch.endpoint_id,
        claim=dispatch.claim,
        state=DeliveryState.PENDING,
        retry_seconds=0,
        was_sent=False,
        disables=disables,
    )


def _refused(dispatch: Dispatch) -> Ended:
    """What an endpoint would have got waits for it to be enabled again; a callback has none that could be."""
    if not dispatch.is_callback:
        return _given_back(dispatch, DisabledBecause.SUBJECT)
    return replace(_given_back(dispatch), state=DeliveryState.DEAD, retry_seconds=None)


def _class_of(status: int | None) -> int | None:
    """None also for a status that HTTP does not have (RFC 9110, section 15)."""
    return status // 100 if status is not None and status in _STATUSES else None


async def _cancel(*tasks: "asyncio.Task[None]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
