"""Protobuf to what administrators ask for, and back."""

from datetime import datetime

from payments.v1.admin_service_pb2 import (
    AdminServiceListOrdersRequest,
    AdminServiceListWebhookEndpointsRequest,
    AuditLog,
    CurrencyTotal,
    DashboardStats,
    ListAuditLogsRequest,
)
from payments.v1.admin_service_pb2 import Statistics as StatisticsMessage
from payorder.domain.errors import BrokenRule, FieldFault, InvalidFields
from payorder.domain.money import Currency
from payorder.domain.states import OrderStatus
from payorder.domain.webhook import EndpointState
from payorder.edge.page_tokens import from_token
from payorder.edge.translate import PAGE_SIZE_DEFAULT, to_currency, to_id, to_money, to_time, to_timestamp
from payorder.ports.admin import AuditEntry, Dashboard, EntryFilter, OrderFilter, Statistics
from payorder.ports.endpoints import EndpointFilter
from payorder.ports.store import PageRequest

Filter = OrderFilter | EntryFilter | EndpointFilter
FilteredRequest = AdminServiceListOrdersRequest | ListAuditLogsRequest | AdminServiceListWebhookEndpointsRequest


def to_order_filter(request: AdminServiceListOrdersRequest) -> OrderFilter:
    """Raises InvalidFields."""
    currency = _currency_of(request)
    return OrderFilter(
        status=OrderStatus(request.status) if request.HasField("status") else None,
        owner=request.user_id if request.HasField("user_id") else None,
        currency=currency.code if currency else None,
        created_after=_to_time(request, "created_after", "createdAfter"),
        created_before=_to_time(request, "created_before", "createdBefore"),
        amount_minor_min=_to_minor(request, "amount_min", "amountMin", currency),
        amount_minor_max=_to_minor(request, "amount_max", "amountMax", currency),
    )


def to_entry_filter(request: ListAuditLogsRequest) -> EntryFilter:
    """Raises InvalidFields."""
    return EntryFilter(
        order_id=to_id(request.order_id) if request.HasField("order_id") else None,
        after=_to_time(request, "after", "after"),
        before=_to_time(request, "before", "before"),
    )


def to_endpoint_filter(request: AdminServiceListWebhookEndpointsRequest) -> EndpointFilter:
    return EndpointFilter(
        created_by=request.created_by if request.HasField("created_by") else None,
        state=EndpointState(request.status) if request.HasField("status") else None,
    )


def to_filtered_page(request: FilteredRequest, wanted: Filter) -> PageRequest:
    """Raises InvalidFields for a token of another filter."""
    size = request.page_size if request.HasField("page_size") else PAGE_SIZE_DEFAULT
    return PageRequest(size=size, after=from_token(request.page_token, wanted))


def to_entry_message(entry: AuditEntry) -> AuditLog:
    return AuditLog(
        id=entry.id,
        chain=entry.chain,
        seq=entry.seq,
        at=to_timestamp(entry.at),
        actor=entry.actor,
        request_id=entry.request_id,
        kind=entry.kind,
        object_id=entry.object_id,
        from_state=entry.from_state,
        to_state=entry.to_state,
        outcome=entry.outcome,
        detail=entry.detail,
        prev_hash=entry.prev_hash.hex(),
        hash=entry.hash.hex(),
    )


def to_dashboard_message(dashboard: Dashboard) -> DashboardStats:
    return DashboardStats(
        as_of=to_timestamp(dashboard.at),
        total=_to_statistics(dashboard.total),
        last_24_hours=_to_statistics(dashboard.last_24_hours),
        last_30_days=_to_statistics(dashboard.last_30_days),
    )


def _to_statistics(statistics: Statistics) -> StatisticsMessage:
    totals = sorted(statistics.totals.items(), key=lambda each: each[0].code)
    return StatisticsMessage(
        since=None if statistics.since is None else to_timestamp(statistics.since),
        orders=statistics.orders,
        payments=statistics.payments,
        success_rate=statistics.success_rate,
        decline_codes=statistics.decline_codes,
        totals=[
            CurrencyTotal(
                currency=currency.code,
                taken=currency.decimal(total.taken_minor),
                refunded=currency.decimal(total.refunded_minor),
            )
            for currency, total in totals
        ],
    )


def _currency_of(request: AdminServiceListOrdersRequest) -> Currency | None:
    if request.HasField("currency"):
        try:
            return to_currency(request.currency)
        except BrokenRule as broken:
            raise InvalidFields([FieldFault("currency", broken.code, broken.message)]) from None
    if request.HasField("amount_min") or request.HasField("amount_max"):
        raise InvalidFields([FieldFault("currency", "required", "is required with an amount")])
    return None


def _to_minor(request: AdminServiceListOrdersRequest, field: str, name: str, currency: Currency | None) -> int | None:
    if currency is None or not request.HasField(field):  # type: ignore[arg-type]  # one of its fields
        return None
    return to_money(name, getattr(request, field), currency.code).amount_minor


def _to_time(request: AdminServiceListOrdersRequest | ListAuditLogsRequest, field: str, name: str) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]  # one of its fields
        return None
    return to_time(name, getattr(request, field))
