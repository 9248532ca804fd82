"""Each translation is one table, and each table has everything that it must have, and nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodOptions
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message

from buf.validate import validate_pb2
from payments.v1 import admin_service_pb2, order_service_pb2, payment_service_pb2, webhook_service_pb2
from payments.v1.error_reason_pb2 import ErrorReason
from payorder.domain.errors import Refusal
from payorder.domain.states import PaymentStatus
from payorder.edge import status, validation
from payorder.edge.methods import ADMIN, METHODS, PACKAGE_PREFIX, READ_ORDERS, WEBHOOKS, WRITE_ORDERS
from payorder.edge.server import SERVICES
from payorder.edge.status import STATUS

ROOT = Path(__file__).parents[2]
MODULES = (order_service_pb2, payment_service_pb2, admin_service_pb2, webhook_service_pb2)

# What the documents say of every RPC: its scope.
SCOPES = {
    "OrderService/CreateOrder": "write:orders",
    "OrderService/GetOrder": "read:orders",
    "OrderService/ListOrders": "read:orders",
    "OrderService/WatchOrder": "read:orders",
    "OrderService/CancelOrder": "write:orders",
    "OrderService/RequestCallback": "write:orders",
    "PaymentService/PayOrder": "write:orders",
    "PaymentService/GetPayment": "read:orders",
    "PaymentService/ListPayments": "read:orders",
    "PaymentService/GetReceipt": "read:orders",
    "PaymentService/RenderReceipt": "read:orders",
    # The keys with which anybody verifies.
    "PaymentService/GetReceiptKeys": None,
    "AdminService/ListOrders": "admin",
    "AdminService/ForceCancelOrder": "admin",
    "AdminService/UpdateOrderStatus": "admin",
    "AdminService/ListWebhookEndpoints": "admin",
    "AdminService/DisableWebhookEndpoint": "admin",
    "AdminService/EnableWebhookEndpoint": "admin",
    "AdminService/GetDashboardStats": "admin",
    "AdminService/ListAuditLogs": "admin",
    "AdminService/GetAuditLog": "admin",
    "WebhookService/CreateWebhookEndpoint": "webhooks",
    "WebhookService/ListWebhookEndpoints": "webhooks",
    "WebhookService/GetWebhookEndpoint": "webhooks",
    "WebhookService/UpdateWebhookEndpoint": "webhooks",
    "WebhookService/DeleteWebhookEndpoint": "webhooks",
    "WebhookService/RotateSecret": "webhooks",
    "WebhookService/SendTestEvent": "webhooks",
    "WebhookService/ListDeliveries": "webhooks",
    "WebhookService/ReplayDelivery": "webhooks",
    "WebhookService/ReplayDeliveries": "webhooks",
}

# Reason -> gRPC status and HTTP status, as the contract has them.
REASONS = {
    "BAD_REQUEST": ("INVALID_ARGUMENT", 400),
    "INVALID_FIELDS": ("INVALID_ARGUMENT", 422),
    "AMOUNT_MISMATCH": ("INVALID_ARGUMENT", 422),
    "CURRENCY_MISMATCH": ("INVALID_ARGUMENT", 422),
    "UNAUTHENTICATED": ("UNAUTHENTICATED", 401),
    "SUBJECT_DISABLED": ("PERMISSION_DENIED", 403),
    "SCOPE_MISSING": ("PERMISSION_DENIED", 403),
    "ORDER_NOT_FOUND": ("NOT_FOUND", 404),
    "ORDER_ALREADY_PAID": ("FAILED_PRECONDITION", 409),
    "ORDER_CANCELLED": ("FAILED_PRECONDITION", 409),
    "ILLEGAL_STATUS_CHANGE": ("FAILED_PRECONDITION", 409),
    "ENTRY_NOT_FOUND": ("NOT_FOUND", 404),
    "RECEIPT_NOT_FOUND": ("NOT_FOUND", 404),
    "WEBHOOK_NOT_FOUND": ("NOT_FOUND", 404),
    "WEBHOOK_LIMIT_REACHED": ("FAILED_PRECONDITION", 409),
    "WEBHOOK_DISABLED_BY_ADMINISTRATOR": ("FAILED_PRECONDITION", 409),
    "PAYMENT_IN_PROGRESS": ("ABORTED", 409),
    "IDEMPOTENCY_KEY_REUSED": ("INVALID_ARGUMENT", 422),
    "PAYMENT_DECLINED": ("FAILED_PRECONDITION", 422),
    "PROCESSOR_UNAVAILABLE": ("UNAVAILABLE", 503),
    "RATE_LIMITED": ("RESOURCE_EXHAUSTED", 429),
    "WATCH_LIMIT_REACHED": ("RESOURCE_EXHAUSTED", 429),
    "BUSY": ("UNAVAILABLE", 503),
    "DEADLINE_TOO_SHORT": ("DEADLINE_EXCEEDED", 504),
    "INTERNAL": ("INTERNAL", 500),
}


def all_subclasses(kind: type) -> Iterator[type]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from all_subclasses(subclass)


def test_every_refusal_and_every_unsuccessful_outcome_has_a_status() -> None:
    outcomes = {status.Declined, status.NotCharged, status.Internal}
    assert {*all_subclasses(Refusal), *outcomes} == set(STATUS)


def test_every_reason_has_one_status_and_every_status_a_reason() -> None:
    published = set(ErrorReason.values()) - {ErrorReason.ERROR_REASON_UNSPECIFIED}
    assert sorted(published) == sorted(row.reason for row in STATUS.values())


def test_every_reason_is_told_as_the_contract_says() -> None:
    told = {status.reason_name(row): (row.code.name, row.http) for row in STATUS.values()}
    assert REASONS == told


def test_only_what_may_be_repeated_says_when() -> None:
    repeatable = {status.reason_name(row) for row in STATUS.values() if row.retry_after_seconds is not None}
    assert {"RATE_LIMITED", "WATCH_LIMIT_REACHED", "BUSY", "PROCESSOR_UNAVAILABLE"} == repeatable


def test_every_payment_status_is_shown_in_lower_case() -> None:
    assert {"processing", "succeeded", "failed", "cancelled"} == {str(each) for each in PaymentStatus}


# Methods


def rpcs() -> set[str]:
    """Every RPC of the descriptor set that is published, as Service/Method."""
    files = FileDescriptorSet.FromString((ROOT / "generated" / "payments.binpb").read_bytes()).file
    ours = [file for file in files if file.package == "payments.v1"]
    return {f"{service.name}/{method.name}" for file in ours for service in file.service for method in service.method}


def methods() -> list[MethodDescriptor]:
    """Every RPC of the code that runs."""
    modules = MODULES
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    return [method for service in services for method in service.methods]


def test_every_rpc_has_a_scope_and_nothing_else_has_one() -> None:
    assert {PACKAGE_PREFIX + rpc: SCOPES[rpc] for rpc in rpcs()} == {name: each.scope for name, each in METHODS.items()}
    assert {READ_ORDERS, WRITE_ORDERS, ADMIN, WEBHOOKS, None} == set(SCOPES.values())


def test_what_an_administrator_reads_is_recorded() -> None:
    reads = {
        f"AdminService/{method.name}"
        for method in admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods
        if method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    }
    assert reads == {method.name for method in METHODS.values() if method.is_recorded}
    assert len(reads) == 5


def test_only_what_asks_the_processor_needs_time() -> None:
    assert {"PaymentService/PayOrder": 3.0, "AdminService/ForceCancelOrder": 3.0} == {
        each.name: each.seconds_min for each in METHODS.values() if each.seconds_min
    }


def test_every_service_is_served_and_known_to_health() -> None:
    assert {f"payments.v1.{rpc.partition('/')[0]}" for rpc in rpcs()} == set(SERVICES)


def test_every_rpc_has_a_rest_route_of_its_own() -> None:
    routes: list[tuple[str, str]] = []
    for method in methods():
        rule = method.GetOptions().Extensions[annotations_pb2.http]
        verbs = [(str(each.WhichOneof("pattern")), each) for each in (rule, *rule.additional_bindings)]
        assert ("None", rule) not in verbs, method.full_name
        routes += [(verb, getattr(each, verb)) for verb, each in verbs]
    assert len(routes) == len(set(routes))


def test_the_published_descriptor_set_is_the_code_that_runs() -> None:
    pool = DescriptorPool()
    files = FileDescriptorSet.FromString((ROOT / "generated" / "payments.binpb").read_bytes()).file
    for file in files:
        pool.Add(file)
    for module in MODULES:
        published = pool.FindFileByName(module.DESCRIPTOR.name)
        assert module.DESCRIPTOR.serialized_pb == published.serialized_pb


# Rules


def messages_of_requests() -> set[Descriptor]:
    """Every message that a request may hold."""
    found: set[Descriptor] = set()

    def visit(message: Descriptor) -> None:
        if message in found:
            return
        found.add(message)
        for field in message.fields:
            if field.message_type is not None:
                visit(field.message_type)

    for method in methods():
        visit(method.input_type)
    return found


def rules_used() -> set[str]:
    """The ids that a violation of the protos' rules can have, as protovalidate gives them."""
    found: set[str] = set()
    for message in messages_of_requests():
        found |= {rule.id for rule in message.GetOptions().Extensions[validate_pb2.message].cel}
        found |= {"required" for oneof in message.oneofs if oneof.GetOptions().Extensions[validate_pb2.oneof].required}
        for field in message.fields:
            found |= set(rules_of(field.GetOptions().Extensions[validate_pb2.field]))
    return found


def rules_of(rules: Message, prefix: str = "") -> Iterator[str]:
    for field, value in rules.ListFields():
        if field.name in ("map", "repeated", "keys", "values", "items"):
            yield from rules_of(value, f"{field.name}." if field.name in ("map", "repeated") else "")
        elif field.message_type is not None and field.name != "cel":
            yield from joined([f"{field.name}.{name.name}" for name, _ in value.ListFields()])
        elif field.type != FieldDescriptor.TYPE_MESSAGE:
            yield f"{prefix}{field.name}"


def joined(names: list[str]) -> list[str]:
    """A lower and an upper bound are one rule; a string that must be an id may also be empty, which is a rule too."""
    if {"int32.gte", "int32.lte"} <= set(names):
        return ["int32.gte_lte"]
    return [*names, "string.uuid_empty"] if names == ["string.uuid"] else names


def test_every_rule_of_the_protos_has_a_code_of_ours_and_every_code_a_rule() -> None:
    named = {rule for rule in rules_used() if rule.startswith("required.")}
    assert {"required." + name for name in ("exp_month", "exp_year", "account_type", "bank_name", "country")} == named
    assert validation._ID_RULES | set(validation.RULES) == rules_used() - named


@pytest.mark.parametrize(("code", "text"), validation.RULES.values(), ids=validation.RULES)
def test_a_rules_code_and_text_quote_nothing(code: str, text: str) -> None:
    assert code.replace("_", "").isalpha()
    assert text.replace(" ", "").isalpha()


def test_what_is_secret_is_marked_so_in_the_contract() -> None:
    marked = {
        f"{message.name}.{field.name}"
        for message in messages_of_requests()
        for field in message.fields
        if field.GetOptions().debug_redact
    }
    assert {"PaymentSource.number", "PaymentSource.cvc"} == marked


def test_an_answer_has_no_place_for_a_secret() -> None:
    answers: set[Descriptor] = set()

    def visit(message: Descriptor) -> None:
        if message not in answers:
            answers.add(message)
            for field in message.fields:
                if field.message_type is not None:
                    visit(field.message_type)

    for method in methods():
        visit(method.output_type)
    names = {field.name for message in answers for field in message.fields}
    assert set() == names & {"cvc", "address_line1", "address_line2", "address_city"}
    assert "PaymentSource" not in {message.name for message in answers}
