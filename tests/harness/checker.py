"""The outside checker: what a run has left behind, against the invariants. Imports nothing of the service.

I1  at most one charge of an order is kept        I6  one key, one answer, the same bytes
I1g at most one charge of an order is ever made   I7  no card number, no CVC, anywhere
I1s a charge is sent once                         I8  nothing stays open
I2  never more refunded than taken                I9  what clients were told is true
I3  every charge is one payment, and back         I10 no right request is called wrong or INTERNAL
I4  approved order = one succeeded payment = one receipt
I5  one event for each end of a payment, an audit entry for each change of state, no gap in an order's sequences,
    and no break in the audit log's chains

`python -m harness.checker --ledger F --transcript F --database-url URL [--search FOLDER]`
"""

import argparse
import asyncio
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.chain import BEGINNING, hash_of
from harness.evidence import Charge, Evidence, Row, collect, read_table
from harness.search import occurrences

OPEN = frozenset({"processing", "unknown"})
CHARGED = frozenset({"succeeded", "late_success"})
PAID_ORDERS = frozenset({"approved", "shipped", "delivered"})
REFUND_OPEN = frozenset({"processing", "pending", "unknown"})
NOT_CHARGED_REASONS = frozenset({"PAYMENT_DECLINED", "PROCESSOR_UNAVAILABLE"})
# A refusal that says nothing of the key: the call was not looked at.
UNREAD_REASONS = frozenset({"BUSY", "RATE_LIMITED", "DEADLINE_TOO_SHORT", "INTERNAL", "UNAUTHENTICATED"})
# The driver sends only what is right, so these are faults.
WRONG_REASONS = frozenset(
    {"INTERNAL", "BAD_REQUEST", "INVALID_FIELDS", "ORDER_NOT_FOUND", "AMOUNT_MISMATCH", "UNAUTHENTICATED"}
)
COMMIT_UNKNOWN = "CommitUnknown"
END_EVENTS = {"succeeded": "payment.succeeded", "failed": "payment.failed", "cancelled": "payment.cancelled"}


@dataclass(frozen=True, slots=True)
class Finding:
    invariant: str
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.kind}: {self.text}"


def check(evidence: Evidence) -> list[Finding]:
    checks = (_money, _refunds, _bijection, _orders, _events, _audit, _keys, _open, _told, _faults)
    return [finding for each in checks for finding in each(evidence)]


def _money(evidence: Evidence) -> Iterator[Finding]:
    """I1, I1g, I1s. Whose a charge is says its amount: every order of a run has another one."""
    by_amount: defaultdict[int, list[Charge]] = defaultdict(list)
    for charge in evidence.ledger.charges:
        by_amount[charge.amount_minor].append(charge)
    for amount, charges in by_amount.items():
        keys = ", ".join(charge.key for charge in charges)
        if sum(charge.kept_minor > 0 for charge in charges) > 1:
            yield Finding("I1", "net double", f"the order of {amount} was charged {len(charges)} times: {keys}")
        if len(charges) > 1:
            yield Finding("I1g", "gross double", f"the order of {amount} was charged {len(charges)} times: {keys}")
    sent = Counter(request["key"] for request in evidence.ledger.requests if request["operation"] == "charge")
    for key, times in sent.items():
        if times > 1:
            yield Finding("I1s", "sent again", f"the charge {key} was sent {times} times")


def _refunds(evidence: Evidence) -> Iterator[Finding]:
    yield from over_refunded(evidence.rows("payments"))
    refunded: Counter[str] = Counter()
    unsettled = set()
    for refund in evidence.rows("refunds"):
        if refund["status"] == "succeeded":
            refunded[refund["payment_id"]] += refund["amount_minor"]
        if refund["status"] in REFUND_OPEN:
            unsettled.add(refund["payment_id"])
    by_key = {charge.key: charge for charge in evidence.ledger.charges}
    for charge in by_key.values():
        if charge.kept_minor < 0:
            yield Finding(
                "I2", "over-refunded", f"{charge.key}: {charge.amount_minor} taken, {charge.refunds} given back"
            )
    for payment in evidence.rows("payments"):
        if payment["id"] in unsettled:
            continue  # I8 tells of it.
        charge = by_key.get(payment["id"])
        given_back = sum(charge.refunds.values()) if charge else 0
        if not payment["refunded_minor"] == refunded[payment["id"]] == given_back:
            told = f"row {payment['refunded_minor']}, refunds {refunded[payment['id']]}, ledger {given_back}"
            yield Finding("I2", "refund mismatch", f"{payment['id']}: {told}")


def over_refunded(payments: Iterable[Row]) -> Iterator[Finding]:
    """I2 of the rows alone: true at every moment, also in the middle of a run."""
    for payment in payments:
        captured = payment["captured_minor"]
        refunded, reserved = payment["refunded_minor"], payment["refund_reserved_minor"]
        if not 0 <= refunded + reserved <= captured <= payment["amount_minor"] or min(refunded, reserved) < 0:
            told = f"captured {captured}, refunded {refunded}, reserved {reserved}, of {payment['amount_minor']}"
            yield Finding("I2", "over-refunded", f"{payment['id']}: {told}")


def _bijection(evidence: Evidence) -> Iterator[Finding]:
    payments = {payment["id"]: payment for payment in evidence.rows("payments")}
    charges = {charge.key: charge for charge in evidence.ledger.charges}
    for charge in charges.values():
        payment = payments.get(charge.key)
        given_back = charge.kept_minor == 0
        if payment is None:
            yield Finding("I3", "lost", f"charge {charge.key} of {charge.amount_minor} has no payment")
        elif payment["status"] not in CHARGED | OPEN and not given_back:
            yield Finding("I3", "lost", f"payment {charge.key} is {payment['status']}, but was charged")
        elif (payment["amount_minor"], payment["currency"]) != (charge.amount_minor, charge.currency):
            yield Finding("I3", "other amount", f"payment {charge.key} is not of {charge.amount_minor}")
        elif payment["status"] in CHARGED and payment["processor_reference"] != charge.reference:
            yield Finding("I3", "other reference", f"payment {charge.key} is not {charge.reference}")
    for own in evidence.rows("findings"):
        if own["closed_at"] is None:
            yield Finding("I3", "own finding", f"the service itself says {own['kind']} of {own['payment_id']}")
    for payment in payments.values():
        if payment["status"] in CHARGED and payment["id"] not in charges:
            yield Finding("I3", "invented", f"payment {payment['id']} is {payment['status']}, but was never charged")


def _orders(evidence: Evidence) -> Iterator[Finding]:
    succeeded: defaultdict[str, list[str]] = defaultdict(list)
    for payment in evidence.rows("payments"):
        if payment["status"] == "succeeded":
            succeeded[payment["order_id"]].append(payment["id"])
    kept = {charge.key: charge.kept_minor for charge in evidence.ledger.charges}
    for order in evidence.rows("orders"):
        paid = succeeded[order["id"]]
        told = f"order {order['id']} is {order['status']}, paid by {order['paid_payment_id']}, succeeded: {paid}"
        if paid != ([order["paid_payment_id"]] if order["paid_payment_id"] else []):
            yield Finding("I4", "not as paid", told)
        elif order["status"] in PAID_ORDERS and not paid:
            yield Finding("I4", "approved unpaid", told)
        elif order["status"] == "placed" and paid:
            yield Finding("I4", "paid but placed", told)
        elif order["status"] == "cancelled" and any(kept.get(payment, 0) > 0 for payment in paid):
            yield Finding("I4", "cancelled but paid", told)
    yield from _receipts(evidence, {payment for paid in succeeded.values() for payment in paid})


def _receipts(evidence: Evidence, succeeded: set[str]) -> Iterator[Finding]:
    if evidence.tables["receipts"] is None:
        yield Finding("I4", "unchecked", "there is no table receipts")
        return
    receipts = Counter(receipt["payment_id"] for receipt in evidence.rows("receipts"))
    for payment in succeeded - receipts.keys():
        yield Finding("I4", "no receipt", f"payment {payment} succeeded")
    for payment, number in receipts.items():
        if number > 1 or payment not in succeeded:
            yield Finding("I4", "false receipt", f"payment {payment} has {number}")


def _events(evidence: Evidence) -> Iterator[Finding]:
    if evidence.tables["events"] is None:
        yield Finding("I5", "unchecked", "there is no table events")
        return
    ends: defaultdict[str, list[str]] = defaultdict(list)
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    for event in evidence.rows("events"):
        sequences[event["order_id"]].append(event["seq"])
        if event["type"] in END_EVENTS.values():
            ends[event["subject_id"]].append(event["type"])
    for payment in evidence.rows("payments"):
        wanted = [END_EVENTS[payment["status"]]] if payment["status"] in END_EVENTS else []
        found = ends[payment["id"]]
        if found != wanted:
            yield Finding("I5", "wrong events", f"payment {payment['id']} is {payment['status']} and has {found}")
    for order, sequence in sequences.items():
        if sorted(sequence) != list(range(1, len(sequence) + 1)):
            yield Finding("I5", "gap", f"order {order} has events {sorted(sequence)}")


def _audit(evidence: Evidence) -> Iterator[Finding]:
    """The entries of each order, payment and refund lead from nothing to the state it is in, without a step missing."""
    if evidence.tables["audit_log"] is None:
        yield Finding("I5", "unchecked", "there is no table audit_log")
        return
    sequences: defaultdict[str, list[int]] = defaultdict(list)
    states: dict[str, str | None] = {}
    for entry in sorted(evidence.rows("audit_log"), key=lambda entry: (entry["chain"], entry["seq"])):
        sequences[entry["chain"]].append(entry["seq"])
        if states.get(entry["object_id"]) != entry["from_state"]:
            yield Finding("I5", "audit differs", f"{entry['object_id']} cannot have been {entry['from_state']}")
        states[entry["object_id"]] = entry["to_state"]
    for table in ("orders", "payments", "refunds"):
        for row in evidence.rows(table):
            if states.get(row["id"]) != ("processing" if row["status"] in OPEN else row["status"]):
                told = f"{row['id']} is {row['status']}, by the audit log {states.get(row['id'])}"
                yield Finding("I5", "audit differs", told)
    for order, sequence in sequences.items():
        if sequence != list(range(1, len(sequence) + 1)):
            yield Finding("I5", "audit gap", f"order {order} has entries {sequence}")
    yield from _chains(evidence)


def _chains(evidence: Evidence) -> Iterator[Finding]:
    """Each entry is hashed over the one before it, and the order has the hash of its newest."""
    newest: dict[str, tuple[int, bytes]] = {}
    for entry in sorted(evidence.rows("audit_log"), key=lambda entry: (entry["chain"], entry["seq"])):
        _, before = newest.get(entry["chain"], (0, BEGINNING))
        if (entry["prev_hash"], entry["hash"]) != (before, hash_of(entry, before)):
            yield Finding("I5", "audit chain", f"entry {entry['seq']} of {entry['chain']} does not follow")
        newest[entry["chain"]] = (entry["seq"], entry["hash"])
    for order in evidence.rows("orders"):
        if newest.get(order["id"]) != (order["audit_seq"], order["audit_hash"]):
            yield Finding("I5", "audit chain", f"order {order['id']} has another head than its newest entry")


def _keys(evidence: Evidence) -> Iterator[Finding]:
    """I6: each key of a caller and method, through all the calls that carried it."""
    by_key: defaultdict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for call in evidence.calls:
        if call["key"] is not None and call["method"] in ("PayOrder", "CreateOrder", "CancelOrder"):
            by_key[call["caller"], call["method"], call["key"]].append(call)
    for (_, method, key), calls in by_key.items():
        ends = [call for call in calls if _is_end(call)]
        if not ends:
            continue
        first = min(ends, key=lambda call: call["ended"])
        name = f"{method} {key}"
        same = [call for call in ends if call["request"] == first["request"]]
        yield from _same_bytes(name, same)
        yield from _after_the_end(name, first, calls)


def _is_end(call: Row) -> bool:
    """Whether this is the answer a key keeps."""
    if call["code"] == "OK":
        return bool(call["method"] != "PayOrder" or call["status"] in ("succeeded", "failed", "cancelled"))
    return call["reason"] in NOT_CHARGED_REASONS


def _same_bytes(name: str, ends: list[Row]) -> Iterator[Finding]:
    answers = {(call["code"], call["answer"], call["location"]) for call in ends}
    if len(answers) > 1:
        payments = sorted({str(call["payment"]) for call in ends})
        yield Finding("I6", "differing replay", f"{name} has {len(answers)} answers, of {', '.join(payments)}")
    if sum(not call["replayed"] for call in ends) > 1:
        yield Finding("I6", "answered anew", f"{name} was answered as new {len(ends)} times")


def _after_the_end(name: str, first: Row, calls: list[Row]) -> Iterator[Finding]:
    for call in calls:
        if call["began"] < first["ended"] or (call["code"] != "OK" and call["reason"] is None):
            continue
        if call["reason"] in UNREAD_REASONS:
            continue
        if call["request"] == first["request"]:
            if not _is_end(call):
                yield Finding("I6", "not replayed", f"{name} was then answered {call['reason'] or call['status']}")
        elif call["reason"] != "IDEMPOTENCY_KEY_REUSED":
            yield Finding("I6", "other request", f"{name} was answered {call['reason'] or call['status']}")


def _open(evidence: Evidence) -> Iterator[Finding]:
    for payment in evidence.rows("payments"):
        if payment["status"] in OPEN:
            yield Finding("I8", "stuck", f"payment {payment['id']} is {payment['status']}")
    for order in evidence.rows("orders"):
        if order["active_payment_id"] is not None:
            yield Finding("I8", "stuck", f"order {order['id']} is still held by {order['active_payment_id']}")
    for refund in evidence.rows("refunds"):
        if refund["status"] in REFUND_OPEN:
            yield Finding("I8", "stuck", f"refund {refund['id']} is {refund['status']}")
    for note in evidence.notes:
        if note["event"] == "gave up":
            yield Finding("I8", "unanswered", f"a client of order {note['order']} never got a definite answer")


def _told(evidence: Evidence) -> Iterator[Finding]:
    payments = {payment["id"]: payment for payment in evidence.rows("payments")}
    charges = {charge.key: charge for charge in evidence.ledger.charges}
    lies: set[Finding] = set()
    for call in evidence.calls:
        if call["payment"] is None:
            continue
        payment = payments.get(call["payment"])
        if payment is None:
            lies.add(Finding("I9", "lie", f"{call['payment']} was told of ({_told_as(call)}) and does not exist"))
            continue
        charge = charges.get(call["payment"])
        if fault := _lie(call, payment, charge):
            lies.add(Finding("I9", "lie", f"{call['payment']} was told as {_told_as(call)}, but {fault}"))
    yield from sorted(lies, key=str)


def _lie(call: Row, payment: Row, charge: Charge | None) -> str | None:
    told_charged = call["status"] == "succeeded" or call["reason"] == "ORDER_ALREADY_PAID"
    told_not_charged = call["reason"] in NOT_CHARGED_REASONS or call["status"] in ("failed", "cancelled")
    status = payment["status"]
    faults = {
        "is a payment of another order": payment["order_id"] != call["order"],
        "was never charged": told_charged and charge is None,
        "was charged": told_not_charged and charge is not None and charge.kept_minor > 0,
        f"is {status}": (told_charged and status != "succeeded")
        or (told_not_charged and status not in ("failed", "cancelled", "late_success")),
    }
    return next((fault for fault, is_so in faults.items() if is_so), None)


def _told_as(call: Row) -> Any:
    return call["reason"] or call["status"]


def _faults(evidence: Evidence) -> Iterator[Finding]:
    """INTERNAL is the truth when the answer to a COMMIT was lost, and only then."""
    wrong = Counter(
        (call["method"], call["reason"] or call["code"])
        for call in evidence.calls
        if call["reason"] in WRONG_REASONS or call["code"] in ("UNKNOWN", "UNIMPLEMENTED")
    )
    unknown_commits = sum(fault.startswith(COMMIT_UNKNOWN) for fault in evidence.faults)
    internal = sum(times for (_, answer), times in wrong.items() if answer == "INTERNAL")
    for (method, answer), times in wrong.items():
        if answer != "INTERNAL" or internal > unknown_commits:
            yield Finding("I10", "wrong answer", f"{method} was answered {answer} {times} times")
    for fault, times in Counter(evidence.faults).items():
        if not fault.startswith(COMMIT_UNKNOWN):
            yield Finding("I10", "fault", f"the service logged {times} times: {fault}")


def leaks(folders: Iterable[Path], evidence: Evidence) -> Iterator[Finding]:
    """I7, in every file below the folders and in every column of every row."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                for what in occurrences(path.read_bytes()):
                    yield Finding("I7", "leak", f"{path}: {what}")
    for table, rows in evidence.tables.items():
        for what in occurrences(repr(rows).encode()):
            yield Finding("I7", "leak", f"table {table}: {what}")


async def over_refunded_now(database_url: str) -> list[Finding]:
    return list(over_refunded(await read_table(database_url, "SELECT * FROM payments") or []))


async def _main(options: argparse.Namespace) -> int:
    evidence = await collect(options.ledger, options.transcript, options.database_url, options.log)
    findings = [*check(evidence), *leaks(options.search, evidence)]
    for finding in findings:
        print(finding)
    return 1 if findings else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--transcript", type=Path, action="append", required=True)
    parser.add_argument("--database-url", required=True)
    parser.add_argument("--log", type=Path, action="append", default=[], help="log of the service")
    parser.add_argument("--search", type=Path, action="append", default=[], help="folder to search for card data")
    sys.exit(asyncio.run(_main(parser.parse_args())))


if __name__ == "__main__":
    main()
