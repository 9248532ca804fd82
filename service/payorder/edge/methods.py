"""Every RPC, what its caller must be allowed, and how much time it needs. A method that is not here is denied."""

from collections.abc import Mapping
from dataclasses import dataclass

READ_ORDERS = "read:orders"
WRITE_ORDERS = "write:orders"
ADMIN = "admin"
WEBHOOKS = "webhooks"
# Beside the scope of a method: for services, to which every order is as their own.

PACKAGE_PREFIX = "/payments.v1."

# Less than this before the deadline, and the caller of what asks the processor would be gone before its answer.
PAYMENT_SECONDS_MIN = 3.0


@dataclass(frozen=True, slots=True)
class Method:
    """`scope` is required of the token; `seconds_min` must be left before the deadline when the call arrives.

    `is_recorded`: a read that the audit log tells of. Without a scope it is for anybody, and no token is looked at.
    """

    name: str
    scope: str | None
    seconds_min: float = 0.0
    is_recorded: bool = False


METHODS: Mapping[str, Method] = {
    f"{PACKAGE_PREFIX}{method.name}": method
    for method in (
        Method("OrderService/CreateOrder", WRITE_ORDERS),
        Method("OrderService/GetOrder", READ_ORDERS),
        Method("OrderService/ListOrders", READ_ORDERS),
        Method("OrderService/WatchOrder", READ_ORDERS),
        Method("OrderService/CancelOrder", WRITE_ORDERS),
        Method("OrderService/RequestCallback", WRITE_ORDERS),
        Method("PaymentService/PayOrder", WRITE_ORDERS, seconds_min=PAYMENT_SECONDS_MIN),
        Method("PaymentService/GetPayment", READ_ORDERS),
        Method("PaymentService/ListPayments", READ_ORDERS),
        Method("PaymentService/GetReceipt", READ_ORDERS),
        Method("PaymentService/RenderReceipt", READ_ORDERS),
        Method("PaymentService/GetReceiptKeys", None),
        Method("AdminService/ListOrders", ADMIN, is_recorded=True),
        Method("AdminService/ForceCancelOrder", ADMIN, seconds_min=PAYMENT_SECONDS_MIN),
        Method("AdminService/UpdateOrderStatus", ADMIN),
        Method("AdminService/ListWebhookEndpoints", ADMIN, is_recorded=True),
        Method("AdminService/DisableWebhookEndpoint", ADMIN),
        Method("AdminService/EnableWebhookEndpoint", ADMIN),
        Method("AdminService/GetDashboardStats", ADMIN, is_recorded=True),
        Method("AdminService/ListAuditLogs", ADMIN, is_recorded=True),
        Method("AdminService/GetAuditLog", ADMIN, is_recorded=True),
        Method("WebhookService/CreateWebhookEndpoint", WEBHOOKS),
        Method("WebhookService/ListWebhookEndpoints", WEBHOOKS),
        Method("WebhookService/GetWebhookEndpoint", WEBHOOKS),
        Method("WebhookService/UpdateWebhookEndpoint", WEBHOOKS),
        Method("WebhookService/DeleteWebhookEndpoint", WEBHOOKS),
        Method("WebhookService/RotateSecret", WEBHOOKS),
        Method("WebhookService/SendTestEvent", WEBHOOKS),
        Method("WebhookService/ListDeliveries", WEBHOOKS),
        Method("WebhookService/ReplayDelivery", WEBHOOKS),
        Method("WebhookService/ReplayDeliveries", WEBHOOKS),
    )
}
