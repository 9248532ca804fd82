# ruff: noqa: S608 - the statements are put together from this file alone
"""Claim and settle on PostgreSQL, each in one statement, which is a transaction by itself.

They do what payments.claim and payments.settle do when nothing stands in the way. When something does, they change
nothing and say so, and the caller goes the general way, which finds out what it was.
"""

import asyncio
import time
from datetime import datetime
from typing import Any

import asyncpg

from payorder.adapters.database import changes
from payorder.adapters.database.attempts import ClaimTerms, counts_source, to_window_milliseconds
from payorder.adapters.database.audit_chain import content_of_change
from payorder.adapters.database.owners import to_owner_parameter
from payorder.adapters.database.rows import from_payment, to_milliseconds
from payorder.adapters.database.tables import OWNER_HAS_TRIED, SOURCE_WAS_TRIED
from payorder.adapters.database.turns import Turns
from payorder.domain.errors import Busy
from payorder.domain.idempotency import IdempotencyKey, Reply
from payorder.domain.limits import AttemptLimits
from payorder.domain.origin import Origin
from payorder.domain.payment import Payment
from payorder.domain.states import PaymentStatus
from payorder.ports.store import CommitUnknown

# A part of both statements: when an entry of the audit log is made, and what its id begins and ends with, as do those
# of events
_moment = """
moment AS MATERIALIZED (
    SELECT at, substr(hex, 1, 8) || '-' || substr(hex, 9) || '-7' AS id_begin,
        substr(CAST(gen_random_uuid() AS text), 19) AS id_end
    FROM (
        SELECT at, lpad(to_hex(at), 12, '0') AS hex
        FROM (SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT) AS at) AS clock
    ) AS told
)
"""


def _id(seq: str) -> str:
    return f"(id_begin || lpad(to_hex({seq} % 4096), 3, '0') || id_end)"


def _hash(previous: str, content: str, seq: str) -> str:
    return f"sha256({previous} || {content} || convert_to({_id(seq)}, 'UTF8') || int8send({seq}) || int8send(at))"


# 1 payment, 2 order, 3 caller, 4 amount, 5 currency, 6 its digits, 7 processor, 8 to 10 source, 11 at, 12 key,
# 13 fingerprint, 14 milliseconds until somebody asks after it, 15 and 16 of the audit log: content, request id;
# 17 the owner, or NULL; 18 the source's fingerprint; 19 to 22 limits on attempts with the source and of the owner, and
# on declines of the order, 0 for none, and the milliseconds for which they look back (attempts.py).
_CLAIM = f"""
WITH {_moment}, tried AS (
    SELECT source_attempt, claimed_at FROM payments
    WHERE source_fingerprint = $18 AND {SOURCE_WAS_TRIED}
    ORDER BY source_attempt DESC
    LIMIT $19
), taken AS (
    UPDATE orders
    SET active_payment_id = $1, latest_payment_id = $1, updated_at = $11,
        declines = CASE WHEN declined_at <= at - $22 THEN 0 ELSE declines END,
        audit_seq = audit_seq + 1, audit_previous = audit_hash,
        audit_hash = {_hash("audit_hash", "$15", "(audit_seq + 1)")}
    FROM moment
    WHERE id = $2 AND owner_sub = coalesce($17, owner_sub) AND status = 'placed' AND active_payment_id IS NULL
        AND total_minor = $4 AND currency = $5
        AND NOT EXISTS (SELECT 1 FROM payments WHERE caller = $3 AND idempotency_key = $12)
        AND ($19 = 0 OR (SELECT count(*) FROM tried WHERE claimed_at > at - $22) < $19)
        AND ($20 = 0 OR $20 > (
            SELECT count(*) FROM (
                SELECT claimed_at FROM payments
                WHERE payments.owner_sub = orders.owner_sub AND {OWNER_HAS_TRIED}
                ORDER BY owner_attempt DESC
                LIMIT $20
            ) AS newest
            WHERE claimed_at > at - $22
        ))
        AND ($21 = 0 OR declines < $21 OR declined_at <= at - $22)
    RETURNING owner_sub, audit_seq, audit_previous, audit_hash, at, {_id("audit_seq")} AS entry_id
), audited AS (
    INSERT INTO audit_log (
        id, chain, seq, at, actor, request_id, kind, object_id, to_state, outcome, prev_hash, hash
    )
    SELECT entry_id, $2, audit_seq, at, $3, $16, 'payment', $1, 'processing', 'done', audit_previous, audit_hash
    FROM taken
)
INSERT INTO payments (
    id, order_id, owner_sub, caller, status, amount_minor, currency, currency_digits, processor,
    source_kind, source_last4, source_masked, source_fingerprint,
    source_attempt,
    owner_attempt,
    created_at, claimed_at, idempotency_key, fingerprint, next_poll_at
)
SELECT $1, $2, owner_sub, $3, 'processing', $4, $5, $6, $7, $8, $9, $10, $18,
    CASE WHEN $19 > 0 THEN (SELECT coalesce(max(source_attempt), 0) + 1 FROM tried) END,
    CASE WHEN $20 > 0 THEN (
        SELECT coalesce(max(owner_attempt), 0) + 1 FROM payments
        WHERE payments.owner_sub = taken.owner_sub AND {OWNER_HAS_TRIED}
    ) END,
    $11, at, $12, $13, at + $14
FROM taken
"""

# 1 payment, 2 order, 3 succeeded, 4 status, 5 reference, 6 captured, 7 decline code, 8 failure, 9 and 10 reply, 11 at,
# 12 who acts, 13 to 16 the changes: kinds, objects, states before and after; 17 to 19 of the audit log: contents,
# request id; 20 declined. There are two changes of a payment that succeeded, and one of any other.
_FIRST, _SECOND = "$17", "$18"
_SETTLE = f"""
WITH {_moment}, released AS (
    UPDATE orders
    SET active_payment_id = NULL,
        status = CASE WHEN $3 THEN 'approved' ELSE status END,
        paid_payment_id = CASE WHEN $3 THEN $1 END,
        declines = declines + $20::int,
        declined_at = CASE WHEN $20 = 1 THEN at ELSE declined_at END,
        event_seq = event_seq + cardinality($13::text[]),
        audit_seq = audit_seq + cardinality($13::text[]),
        audit_previous = audit_hash,
        audit_hash = CASE
            WHEN $3 THEN {_hash(_hash("audit_hash", _FIRST, "(audit_seq + 1)"), _SECOND, "(audit_seq + 2)")}
            ELSE {_hash("audit_hash", _FIRST, "(audit_seq + 1)")}
        END,
        updated_at = $11
    FROM moment
    WHERE id = $2 AND active_payment_id = $1
    RETURNING event_seq - cardinality($13::text[]) AS event_seq, audit_seq - cardinality($13::text[]) AS audit_seq,
        audit_previous, audit_hash, at, id_begin, id_end
), settled AS (
    UPDATE payments
    SET status = $4, processor_reference = $5, captured_minor = $6, decline_code = $7, failure = $8,
        reply_code = $9, reply = $10, next_poll_at = NULL, settled_at = $11
    FROM released
    WHERE id = $1 AND status IN ('processing', 'unknown')
    RETURNING id
), received AS (
    INSERT INTO receipts (id, payment_id, order_id, created_at) SELECT id, id, $2, $11 FROM settled WHERE $3
), linked AS (
    SELECT *, CASE
            WHEN $3 THEN {_hash("audit_previous", _FIRST, "(audit_seq + 1)")}
            ELSE audit_hash
        END AS first_hash
    FROM released
), changes AS (
    SELECT * FROM linked, unnest($13::text[], $14::text[], $15::text[], $16::text[])
        WITH ORDINALITY AS change (kind, object_id, from_state, to_state, number)
), audited AS (
    INSERT INTO audit_log (
        id, chain, seq, at, actor, request_id, kind, object_id, from_state, to_state, outcome, prev_hash, hash
    )
    SELECT {_id("(audit_seq + number)")}, $2, audit_seq + number, at, $12, $19, kind, object_id, from_state, to_state,
        'done',
        CASE number WHEN 1 THEN audit_previous ELSE first_hash END,
        CASE number WHEN 1 THEN first_hash ELSE audit_hash END
    FROM changes
)
INSERT INTO events (order_id, seq, id, type, subject_id, from_state, actor, created_at)
-- If the order was released and the payment not settled, this is NULL, which no event may be: nothing is done at all.
SELECT $2, event_seq + number, {_id("(event_seq + number)")}, kind || '.' || to_state,
    CASE WHEN EXISTS (SELECT 1 FROM settled) THEN object_id END, from_state, $12, $11
FROM changes
"""

_NOTHING_DONE = "INSERT 0 0"
_CLOSE_TIMEOUT_SECONDS = 5.0
# What lies between here and the server may by then have forgotten a connection without a word.
_IDLE_SECONDS_MAX = 300.0
# Whether the statement was committed is not known: it is when the server has answered, even with an error of its own.
_LOST = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.StatementCompletionUnknownError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)


class HotPath:
    """Connections of its own, `pool_size` for claims and as many for settlements.

    They are apart, so that what was begun is not starved by what begins.
    """

    def __init__(
        self,
        connect_arguments: dict[str, Any],
        *,
        pool_size: int,
        pool_timeout_seconds: float,
        finish_timeout_seconds: float,
    ) -> None:
        self._claims = _Connections(connect_arguments, pool_size, pool_timeout_seconds)
        self._settlements = _Connections(connect_arguments, pool_size, finish_timeout_seconds)

    async def claim(self, payment: Payment, origin: Origin, key: IdempotencyKey | None, terms: ClaimTerms) -> bool:
        """Whether it was made. Raises Busy if nothing was asked, and CommitUnknown."""
        row = from_payment(payment)
        return await self._claims.run(
            _CLAIM,
            *(payment.id, payment.order_id, origin.actor, row["amount_minor"], row["currency"], row["currency_digits"]),
            *(row["processor"], row["source_kind"], row["source_last4"], row["source_masked"], row["created_at"]),
            *((key.key, key.fingerprint) if key else (None, None)),
            terms.poll_after_ms,
            *(content_of_change(payment.order_id, changes.of_claimed(payment), origin), origin.request_id),
            *(to_owner_parameter(origin.owner), payment.source_fingerprint, *_limits(payment, terms.limits)),
        )

    async def settle(self, payment: Payment, reply: Reply, at: datetime, origin: Origin) -> bool:
        """Whether it was this payment's first end. Raises Busy, also when that is not known: it may be repeated."""
        succeeded = payment.status is PaymentStatus.SUCCEEDED
        happened = changes.of_settled(payment)
        contents = [content_of_change(payment.order_id, change, origin) for change in happened]
        try:
            return await self._settlements.run(
                _SETTLE,
                *(payment.id, payment.order_id, succeeded, payment.status, payment.reference),
                *(payment.amount.amount_minor if succeeded else 0, payment.decline_code, payment.failure),
                *(reply.code, reply.body, to_milliseconds(at), origin.actor),
                *([change.kind for change in happened], [change.object_id for change in happened]),
                *([change.from_state for change in happened], [change.to_state for change in happened]),
                *(contents[0], contents[-1], origin.request_id, int(payment.decline_code is not None)),
            )
        except CommitUnknown as unknown:
            raise Busy from unknown

    async def close(self) -> None:
        await self._claims.close()
        await self._settlements.close()


def _limits(payment: Payment, limits: AttemptLimits) -> tuple[int, int, int, int]:
    of_source = limits.attempts_per_source if counts_source(payment, limits) else 0
    return of_source, limits.attempts_per_owner, limits.declines_per_order, to_window_milliseconds(limits)


class _Connections:
    """Connections that prepare a statement once and then stay as they are, so that nothing has to be reset.

    asyncpg's own pool would do; what it does for each loan costs as much as the statement does here.
    """

    def __init__(self, connect_arguments: dict[str, Any], size: int, timeout_seconds: float) -> None:
        self._connect_arguments = connect_arguments
        self._turns = Turns(size, timeout_seconds)
        # With when they were last used; the last goes first, so that those not needed stay unused.
        self._idle: list[tuple[Any, float]] = []

    async def run(self, statement: str, *values: Any) -> bool:
        """Whether the statement did something. Raises Busy if it was not sent, CommitUnknown if nobody answered."""
        await self._turns.take()
        try:
            connection = await self._connected()
            try:
                has_done_something = await _run(connection, statement, values)
            except BaseException:
                # Something may still go on there: nobody else shall wait behind it.
                connection.terminate()
                raise
            self._idle.append((connection, time.monotonic()))
            return has_done_something
        finally:
            self._turns.give_back()

    async def close(self) -> None:
        closing = [connection.close(timeout=_CLOSE_TIMEOUT_SECONDS) for connection, _ in self._idle]
        await asyncio.gather(*closing, return_exceptions=True)

    async def _connected(self) -> Any:
        while self._idle:
            connection, used_at = self._idle.pop()
            if time.monotonic() - used_at < _IDLE_SECONDS_MAX and not connection.is_closed():
                return connection
            connection.terminate()
        try:
            return await asyncpg.connect(**self._connect_arguments)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise Busy from error


async def _run(connection: Any, statement: str, values: tuple[Any, ...]) -> bool:
    try:
        return bool(await connection.execute(statement, *values) != _NOTHING_DONE)
    except _LOST as error:
        raise CommitUnknown from error
    except asyncpg.PostgresError:
        return False  # The server has undone it. The general way will ask again, or say what is wrong.
