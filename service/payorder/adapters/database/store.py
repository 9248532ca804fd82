"""The Store port on a database: each method is one transaction around the statements of its table."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from payorder.adapters.database import (
    admin,
    audit,
    events,
    findings,
    migrate,
    orders,
    payments,
    refunds,
    seals,
    statistics,
)
from payorder.adapters.database.attempts import ClaimTerms
from payorder.adapters.database.engine import Database
from payorder.adapters.database.rows import to_milliseconds
from payorder.domain.errors import Busy
from payorder.domain.finding import Finding
from payorder.domain.idempotency import IdempotencyKey, Replay, Reply
from payorder.domain.limits import AttemptLimits
from payorder.domain.order import Order
from payorder.domain.origin import SERVICE, Origin, Owner
from payorder.domain.payment import Payment
from payorder.domain.refund import Refund
from payorder.domain.seal import Seal
from payorder.ports.admin import AuditEntry, Dashboard, EntryFilter, Found, OrderFilter
from payorder.ports.audit import CallRecord
from payorder.ports.events import OrderEvent
from payorder.ports.processor import Charge
from payorder.ports.signing import Signer
from payorder.ports.store import (
    Cancelled,
    CancelRequest,
    CommitUnknown,
    FulfilRequest,
    Interval,
    Lease,
    Page,
    PageRequest,
)

_READY_WITHIN_SECONDS = 2.0


class DatabaseStore:
    """Implements payorder.ports.store.Store and payorder.ports.events.EventStore.

    `reconcile_after_seconds`: a payment is due to be asked after this long after its claim, by the database's clock.
    `on_change` is told what was written, of whom, and of which order, after it was.
    """

    def __init__(
        self,
        database: Database,
        *,
        reconcile_after_seconds: float,
        limits: AttemptLimits,
        on_change: Callable[[str, str, str], None],
    ) -> None:
        self._database = database
        self._claim_terms = ClaimTerms(round(reconcile_after_seconds * 1000), limits)
        self._on_change = on_change

    async def add_order(self, order: Order, origin: Origin, reply: Reply, key: IdempotencyKey | None) -> Replay | None:
        replay = await self._database.write(lambda connection: orders.add(connection, order, origin, reply, key))
        if replay is None:
            self._on_change("order.placed", order.id, order.id)
        return replay

    async def get_order(self, order_id: str, owner: Owner) -> Order:
        async with self._database.read() as connection:
            return await orders.get_with_receipt(connection, order_id, owner)

    async def list_orders(self, owner: str, page: PageRequest) -> Page[Order]:
        async with self._database.read() as connection:
            return await orders.list_page(connection, owner, page)

    async def cancel_order(
        self, cancel: CancelRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
    ) -> Cancelled | Replay:
        cancelled = await self._database.write(lambda connection: orders.cancel(connection, cancel, render, key))
        if isinstance(cancelled, Cancelled) and cancelled.order.updated_at == cancel.at:
            self._on_change("order.cancelled", cancel.order_id, cancel.order_id)
        return cancelled

    async def fulfil_order(
        self, fulfil: FulfilRequest, render: Callable[[Order], Reply], key: IdempotencyKey | None
    ) -> Order | Replay:
        fulfilled = await self._database.write(lambda connection: orders.fulfil(connection, fulfil, render, key))
        if isinstance(fulfilled, Order):
            self._on_change(f"order.{fulfilled.status}", fulfilled.id, fulfilled.id)
        return fulfilled

    async def claim(self, payment: Payment, origin: Origin, key: IdempotencyKey | None) -> Replay | None:
        try:
            replay = await self._claim(payment, origin, key)
        except CommitUnknown:
            # The id is our own: if the row is there, the claim was made, and by nobody else.
            if not await self._exists(payment.id):
                raise
            replay = None
        if replay is None:
            self._on_change("payment.processing", payment.id, payment.order_id)
        return replay

    async def settle(self, payment: Payment, reply: Reply, at: datetime, origin: Origin = SERVICE) -> Reply:
        earlier = await self._settle(payment, reply, at, origin)
        if earlier is None:
            self._on_change(f"payment.{payment.status}", payment.id, payment.order_id)
        return earlier or reply

    async def mark_unknown(self, payment_id: str) -> None:
        await self._database.finish(lambda connection: payments.mark_unknown(connection, payment_id))

    async def lease_open_payments(self, lease: Lease) -> list[Payment]:
        return await self._database.finish(lambda connection: payments.lease_open(connection, lease))

    async def lease_open_refunds(self, lease: Lease) -> list[Refund]:
        return await self._database.finish(lambda connection: refunds.lease_open(connection, lease))

    async def settle_refund(self, refund: Refund, reference: str | None, at: datetime) -> None:
        settled_at = to_milliseconds(at)
        try:
            await self._database.finish(lambda connection: refunds.settle(connection, refund, reference, settled_at))
        except refunds.AlreadySettled:
            return
        what = "refund.declined" if reference is None else "refund.succeeded"
        self._on_change(what, refund.id, refund.order_id)

    async def retry_later(self, payment_or_refund: Payment | Refund) -> None:
        statements = payments if isinstance(payment_or_refund, Payment) else refunds
        await self._database.finish(lambda connection: statements.retry_later(connection, payment_or_refund.id))

    async def seal_audit_log(self, signer: Signer, when: Interval, known: Seal | None) -> Seal | None:
        # Read where reading keeps nobody waiting; only one of those who have read the same can add.
        async with self._database.snapshot() as connection:
            seal = await seals.next_seal(connection, signer, when, known)
        if seal is None:
            return None
        try:
            await self._database.finish(lambda connection: seals.add(connection, seal))
        except seals.SealedBefore:
            return None
        return seal

    async def add_up_statistics(self, when: Interval) -> bool:
        every, settled_after = round(when.every_seconds * 1000), round(when.settled_after_seconds * 1000)
        async with self._database.snapshot() as connection:
            rows = await statistics.next_sum(connection, every, settled_after)
        if not rows:
            return False
        try:
            await self._database.finish(lambda connection: statistics.add(connection, rows))
        except statistics.AddedUpBefore:
            return False
        return True

    async def get_dashboard(self) -> Dashboard:
        async with self._database.snapshot() as connection:
            return await statistics.dashboard(connection)

    async def find_orders(self, wanted: OrderFilter, page: PageRequest) -> Found:
        async with self._database.read() as connection:
            return await admin.find_orders(connection, wanted, page)

    async def list_entries(self, wanted: EntryFilter, page: PageRequest) -> Page[AuditEntry]:
        async with self._database.read() as connection:
            return await admin.list_entries(connection, wanted, page)

    async def get_entry(self, entry_id: str) -> AuditEntry:
        async with self._database.read() as connection:
            return await admin.get_entry(connection, entry_id)

    async def record_call(self, call: CallRecord) -> None:
        await self._database.record(lambda connection: audit.add_call(connection, call))

    async def compare(self, charges: Sequence[Charge]) -> list[Finding]:
        async with self._database.read() as connection:
            found = await findings.find(connection, charges)
        return await self._database.finish(lambda connection: findings.record(connection, found)) if found else []

    async def get_payment(self, payment_id: str, owner: Owner) -> Payment:
        async with self._database.read() as connection:
            return await payments.get(connection, payment_id, owner)

    async def get_latest_payment(self, order_id: str, owner: Owner) -> Payment:
        async with self._database.read() as connection:
            return await payments.get_latest(connection, order_id, owner)

    async def list_payments(self, order_id: str, owner: Owner, page: PageRequest) -> Page[Payment]:
        async with self._database.read() as connection:
            return await payments.list_page(connection, order_id, owner, page)

    async def list_events(self, order_id: str, *, after: int, at_most: int) -> list[OrderEvent]:
        async with self._database.read() as connection:
            return await events.list_after(connection, order_id, after, at_most)

    async def newest_sequences(self, order_ids: Collection[str]) -> Mapping[str, int]:
        async with self._database.read() as connection:
            return await events.newest(connection, order_ids)

    async def _claim(self, payment: Payment, origin: Origin, key: IdempotencyKey | None) -> Replay | None:
        hot_path, terms = self._database.hot_path, self._claim_terms
        if hot_path and await hot_path.claim(payment, origin, key, terms):
            return None
        return await self._database.write(lambda connection: payments.claim(connection, payment, origin, key, terms))

    async def _settle(self, payment: Payment, reply: Reply, at: datetime, origin: Origin) -> Reply | None:
        """None, or the reply of whoever settled it before."""
        hot_path = self._database.hot_path
        if hot_path and await hot_path.settle(payment, reply, at, origin):
            return None
        return await self._database.finish(lambda connection: payments.settle(connection, payment, reply, at, origin))

    async def _exists(self, payment_id: str) -> bool:
        with suppress(Busy):
            return await self._database.finish(lambda connection: payments.exists(connection, payment_id))
        return False

    async def is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_READY_WITHIN_SECONDS), self._database.probe() as connection:
                return await migrate.is_current(connection)
        except (Busy, TimeoutError):
            return False

    async def close(self) -> None:
        await self._database.close()
