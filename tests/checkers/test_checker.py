"""Each invariant by itself: records of a run in which all is well, and what the checker says when one thing is not."""

import base64
import copy
import subprocess
import sys
from random import Random

import pytest

from harness.cards import SENTINEL, card_number
from harness.chain import BEGINNING, hash_of
from harness.checker import check, leaks
from harness.evidence import Charge, Evidence, Ledger, read_faults
from harness.search import occurrences

ORDER, PAYMENT, FAILED = "order-1", "payment-1", "payment-0"


def _payment(payment_id: str, status: str, **more):
    charged = status == "succeeded"
    return {
        "id": payment_id,
        "order_id": ORDER,
        "status": status,
        "amount_minor": 1001,
        "currency": "GBP",
        "processor_reference": "ch_1" if charged else None,
        "captured_minor": 1001 if charged else 0,
        "refunded_minor": 0,
        "refund_reserved_minor": 0,
        **more,
    }


def _event(seq: int, kind: str, subject: str):
    return {"order_id": ORDER, "seq": seq, "type": kind, "subject_id": subject}


def _entry(seq: int, object_id: str, from_state: str | None, to_state: str):
    told = {"object_id": object_id, "from_state": from_state, "to_state": to_state, "kind": "payment", "actor": "alice"}
    known = {"id": f"entry-{seq}", "chain": ORDER, "seq": seq, "at": seq, "outcome": "done", "prev_hash": b""}
    return {"request_id": None, "detail": None, "hash": b"", **known, **told}


def _chained(*entries):
    before = BEGINNING
    for entry in entries:
        entry["prev_hash"], entry["hash"] = before, hash_of(entry, before)
        before = entry["hash"]
    return list(entries)


def _call(**more):
    return {
        "method": "PayOrder",
        "caller": "alice",
        "order": ORDER,
        "key": "key-1",
        "request": "pay",
        "began": 1.0,
        "ended": 2.0,
        "code": "OK",
        "reason": None,
        "payment": PAYMENT,
        "status": "succeeded",
        "replayed": False,
        "location": "/payments/payment-1",
        "answer": b"answer",
        **more,
    }


REPLAY = {"began": 3.0, "ended": 4.0, "replayed": True}
DECLINED = {"code": "FAILED_PRECONDITION", "reason": "PAYMENT_DECLINED", "status": None, "location": None}


def all_is_well() -> Evidence:
    """One order: declined once, then paid, and its key used again."""
    entries = _chained(
        _entry(1, ORDER, None, "placed"),
        _entry(2, FAILED, None, "processing"),
        _entry(3, FAILED, "processing", "failed"),
        _entry(4, PAYMENT, None, "processing"),
        _entry(5, PAYMENT, "processing", "succeeded"),
        _entry(6, ORDER, "placed", "approved"),
    )
    order = {"id": ORDER, "status": "approved", "paid_payment_id": PAYMENT, "active_payment_id": None}
    order |= {"audit_seq": 6, "audit_hash": entries[-1]["hash"]}
    return Evidence(
        ledger=Ledger(
            charges=[Charge(PAYMENT, 1001, "GBP", "ch_1")],
            requests=[{"operation": "charge", "key": key} for key in (FAILED, PAYMENT)],
            declined={FAILED},
            cancelled=set(),
        ),
        tables={
            "orders": [order],
            "payments": [_payment(FAILED, "failed"), _payment(PAYMENT, "succeeded")],
            "receipts": [{"payment_id": PAYMENT}],
            "events": [_event(1, "payment.failed", FAILED), _event(2, "payment.succeeded", PAYMENT)],
            "audit_log": entries,
            "refunds": [],
            "findings": [],
        },
        calls=[
            _call(key="key-0", payment=FAILED, began=0.0, ended=0.5, **DECLINED),
            _call(),
            _call(**REPLAY),
        ],
        notes=[],
    )


def test_there_is_nothing_to_find_where_all_is_well():
    assert [] == check(all_is_well())


def _row(table: str, index: int, **changes):
    return lambda evidence: evidence.tables[table][index].update(changes)


def _add(table: str, row):
    return lambda evidence: evidence.tables[table].append(row)


def _drop(table: str, index: int):
    return lambda evidence: evidence.tables[table].pop(index)


def _charge(key: str, amount_minor: int, **refunds: int):
    return lambda evidence: evidence.ledger.charges.append(Charge(key, amount_minor, "GBP", "ch_2", refunds))


def _told(**call):
    return lambda evidence: evidence.calls.append(_call(**call))


def _refunded(**refunds: int):
    return lambda evidence: evidence.ledger.charges[0].refunds.update(refunds)


def _set(name: str, value):
    return lambda evidence: setattr(evidence.ledger, name, value)


_UNKEYED = {"key": None}
_IN_PROGRESS = {"code": "ABORTED", "reason": "PAYMENT_IN_PROGRESS", "status": None}
_OPEN_REFUND = {"id": "refund-1", "payment_id": PAYMENT, "amount_minor": 1, "status": "processing"}
CASES = {
    "an order is charged twice": (_charge("x", 1001), {"I1 net double", "I1g gross double", "I3 lost"}),
    "a second charge is given back": (_charge("x", 1001, r=1001), {"I1g gross double", "I3 lost"}),
    "a charge is sent twice": (
        _set("requests", [{"operation": "charge", "key": PAYMENT}] * 2),
        {"I1s sent again"},
    ),
    "more is given back than was taken": (_refunded(a=1001, b=1), {"I2 over-refunded", "I2 refund mismatch"}),
    "a refund is nowhere written": (_refunded(a=1), {"I2 refund mismatch"}),
    "more is reserved than was taken": (_row("payments", 1, refund_reserved_minor=1002), {"I2 over-refunded"}),
    "a charge has no payment": (_charge("x", 7), {"I3 lost"}),
    "a failed payment was charged": (_charge(FAILED, 5), {"I3 lost", "I9 lie"}),
    "the amounts differ": (_row("payments", 1, amount_minor=1002), {"I3 other amount"}),
    "the references differ": (_row("payments", 1, processor_reference="ch_9"), {"I3 other reference"}),
    "a payment was never charged": (_set("charges", []), {"I3 invented", "I9 lie"}),
    "the service has a finding": (
        _add("findings", {"kind": "charge_without_payment", "payment_id": "x", "closed_at": None}),
        {"I3 own finding"},
    ),
    "an order is paid but placed": (_row("orders", 0, status="placed"), {"I4 paid but placed", "I5 audit differs"}),
    "an order names no payment": (_row("orders", 0, paid_payment_id=None), {"I4 not as paid"}),
    "a cancelled order keeps the money": (
        _row("orders", 0, status="cancelled"),
        {"I4 cancelled but paid", "I5 audit differs"},
    ),
    "a receipt is missing": (_drop("receipts", 0), {"I4 no receipt"}),
    "a receipt is false": (_add("receipts", {"payment_id": FAILED}), {"I4 false receipt"}),
    "an event is missing": (_drop("events", 0), {"I5 wrong events", "I5 gap"}),
    "an event came twice": (_add("events", _event(3, "payment.succeeded", PAYMENT)), {"I5 wrong events"}),
    "an event is of the other kind": (_row("events", 1, type="payment.failed"), {"I5 wrong events"}),
    "a number was left out": (_row("events", 1, seq=3), {"I5 gap"}),
    "a change is not in the audit log": (_drop("audit_log", 4), {"I5 audit differs", "I5 audit gap", "I5 audit chain"}),
    "the newest change is not in the audit log": (_drop("audit_log", 5), {"I5 audit differs", "I5 audit chain"}),
    "a change is twice in the audit log": (
        _add("audit_log", _entry(7, PAYMENT, "processing", "succeeded")),
        {"I5 audit differs", "I5 audit chain"},
    ),
    "a number of the audit log was left out": (_row("audit_log", 5, seq=7), {"I5 audit gap", "I5 audit chain"}),
    "an entry of the audit log says something else": (_row("audit_log", 2, actor="mallory"), {"I5 audit chain"}),
    "an order has the head of another chain": (_row("orders", 0, audit_hash=bytes(32)), {"I5 audit chain"}),
    "a replay has other bytes": (_told(**REPLAY | {"answer": b"Answer"}), {"I6 differing replay"}),
    "a replay has another location": (_told(**REPLAY | {"location": "/"}), {"I6 differing replay"}),
    "a repetition is answered as new": (_told(**REPLAY | {"replayed": False}), {"I6 answered anew"}),
    "a repetition is refused": (_told(**REPLAY | _IN_PROGRESS), {"I6 not replayed"}),
    "another request gets the answer": (_told(**REPLAY | {"request": "other"}), {"I6 other request"}),
    "a payment stays open": (
        _row("payments", 0, status="unknown"),
        {"I5 wrong events", "I5 audit differs", "I8 stuck", "I9 lie"},
    ),
    "an order stays held": (_row("orders", 0, active_payment_id=PAYMENT), {"I8 stuck"}),
    "a refund stays open": (_add("refunds", _OPEN_REFUND), {"I5 audit differs", "I8 stuck"}),
    "a client was never answered": (
        lambda evidence: evidence.notes.append({"event": "gave up", "order": ORDER}),
        {"I8 unanswered"},
    ),
    "a failed payment was told as succeeded": (_told(**_UNKEYED, payment=FAILED), {"I9 lie"}),
    "a charged payment was told as declined": (_told(**_UNKEYED | DECLINED), {"I9 lie"}),
    "a payment that does not exist was told of": (_told(**_UNKEYED | _IN_PROGRESS, payment="x"), {"I9 lie"}),
    "a payment of another order was told": (_told(**_UNKEYED, order="order-2"), {"I9 lie"}),
    "a fault was answered": (
        _told(key=None, code="INTERNAL", reason="INTERNAL", status=None, payment=None),
        {"I10 wrong answer"},
    ),
    "a fault was logged": (lambda evidence: evidence.faults.append("KeyError at store.py:1 x"), {"I10 fault"}),
}


@pytest.mark.parametrize("case", CASES)
def test_one_wrong_thing_is_found(case):
    change, expected = CASES[case]
    evidence = copy.deepcopy(all_is_well())
    change(evidence)
    assert expected == {f"{finding.invariant} {finding.kind}" for finding in check(evidence)}


def test_internal_is_the_truth_where_the_answer_to_a_commit_was_lost():
    evidence = all_is_well()
    evidence.calls.append(_call(key=None, code="INTERNAL", reason="INTERNAL", status=None, payment=None))
    evidence.faults.append("CommitUnknown at engine.py:1 _in_transaction")
    assert [] == check(evidence)


@pytest.mark.parametrize("table", ["receipts", "events", "audit_log"])
def test_a_missing_table_is_not_a_clean_one(table):
    evidence = all_is_well()
    evidence.tables = evidence.tables | {table: None}
    assert "unchecked" in {finding.kind for finding in check(evidence)}


NUMBER = SENTINEL + "123456"


@pytest.mark.parametrize(
    "leaked",
    [
        NUMBER.encode(),
        NUMBER.encode("utf-16-le"),
        NUMBER.encode().hex().encode(),
        NUMBER[::-1].encode(),
        f"{NUMBER[:4]} {NUMBER[4:8]} {NUMBER[8:12]} {NUMBER[12:]}".encode(),
        *(base64.b64encode(b"x" * before + NUMBER.encode()) for before in range(3)),
        b'{"cvc": "123"}',
        b'{"cvc":"123"}',
        b"cvc=1234",
    ],
)
def test_card_data_is_found_however_it_is_kept(leaked, tmp_path):
    (tmp_path / "file").write_bytes(b"before" + leaked + b"after" if b"cvc" not in leaked else leaked)
    assert {"I7"} == {finding.invariant for finding in leaks([tmp_path], all_is_well())}


def test_what_is_masked_is_no_card_data():
    assert [] == list(occurrences(b'{"number":"************4242","cvc":"***"} 1795357869'))


def test_card_numbers_pass_the_luhn_check():
    for seed in range(50):
        digits = [int(digit) for digit in reversed(card_number(Random(seed)))]  # noqa: S311 - not secret
        assert 0 == (sum(digits[::2]) + sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])) % 10


def test_a_fault_is_read_as_the_service_logs_it(tmp_path):
    program = (
        "from payorder.observability.logging import CallLog, configure\n"
        "configure('INFO')\n"
        "CallLog().event('serving')\n"
        "try: raise ValueError('fault')\n"
        "except ValueError as fault: CallLog().fault(fault)\n"
    )
    with (tmp_path / "log").open("wb") as log:
        subprocess.run([sys.executable, "-c", program], stdout=log, check=True)
        log.write(b'{"event":"fault","faults":[{"type":"cut sho')
    assert ["ValueError at <string>:4 <module>"] == list(read_faults(tmp_path / "log"))
