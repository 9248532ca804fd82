"""Rounds of the reconciler over payments that are due, outside a service, so that nobody else takes them first."""

from time import perf_counter

from sqlalchemy import insert, make_url
from sqlalchemy.ext.asyncio import create_async_engine

from bench.load.calls import AMOUNT_MINOR, CURRENCY
from bench.stage import OWNER
from payorder.adapters.database.audit_chain import BEGINNING
from payorder.adapters.database.engine import Database
from payorder.adapters.database.store import DatabaseStore
from payorder.adapters.database.tables import orders, payments
from payorder.adapters.processors import sandbox
from payorder.adapters.system import SystemClock, new_id
from payorder.domain.limits import AttemptLimits
from payorder.edge.replies import to_payment_reply
from payorder.workflows.reconcile import Reconcile, ReconcileLimits

# The service beside us only looks at what its own processor was asked for.
PROCESSOR = "bench"
# As many as one round takes.
DUE = 50


async def round_seconds(database_url: str, count: int) -> list[float]:
    """The times of rounds over DUE payments each, which are cancelled at the sandbox and written down as failed."""
    store = DatabaseStore(
        Database(database_url, pool_size=10, pool_timeout_seconds=5),
        reconcile_after_seconds=25,
        limits=AttemptLimits(declines_per_order=0, attempts_per_owner=0, attempts_per_source=0, window_seconds=3600),
        on_change=lambda *_: None,
    )
    reconcile = _reconcile(store)
    seconds = []
    for _ in range(count + 1):
        await _make_due(database_url)
        began = perf_counter()
        await reconcile.settle_open()
        seconds.append(perf_counter() - began)
    await store.close()
    return seconds[1:]  # The first has opened the connections.


def _reconcile(store: DatabaseStore) -> Reconcile:
    def fail(fault: BaseException) -> None:
        raise fault

    return Reconcile(
        store=store,
        processor=sandbox.from_options({}),
        clock=SystemClock(),
        render=to_payment_reply,
        limits=ReconcileLimits(
            processor_name=PROCESSOR,
            every_seconds=1,
            timeout_seconds=5,
            compare_every_seconds=60,
            compare_timeout_seconds=60,
        ),
        on_finding=lambda _finding: None,
        on_fault=fail,
    )


async def _make_due(database_url: str) -> None:
    pairs = [(new_id(), new_id()) for _ in range(DUE)]
    engine = create_async_engine(make_url(database_url).set(drivername="postgresql+asyncpg"))
    async with engine.begin() as connection:
        await connection.execute(insert(orders), [_order(*pair) for pair in pairs])
        await connection.execute(insert(payments), [_payment(*pair) for pair in pairs])
    await engine.dispose()


def _order(order_id: str, payment_id: str) -> dict[str, object]:
    return {
        "id": order_id,
        "owner_sub": OWNER,
        "status": "placed",
        "currency": CURRENCY,
        "currency_digits": 2,
        "total_minor": AMOUNT_MINOR,
        "metadata": "{}",
        "audit_seq": 0,
        "audit_hash": BEGINNING,
        "audit_previous": BEGINNING,
        "latest_payment_id": payment_id,
        "active_payment_id": payment_id,
        "created_at": 0,
        "updated_at": 0,
    }


def _payment(order_id: str, payment_id: str) -> dict[str, object]:
    return {
        "id": payment_id,
        "order_id": order_id,
        "owner_sub": OWNER,
        "status": "processing",
        "currency": CURRENCY,
        "currency_digits": 2,
        "amount_minor": AMOUNT_MINOR,
        "processor": PROCESSOR,
        "caller": OWNER,
        "next_poll_at": 0,
        "source_kind": "card",
        "source_last4": "4242",
        "source_masked": '{"object":"card","name":"J. Doe","number":"************4242"}',
        "created_at": 0,
        "claimed_at": 0,
    }
