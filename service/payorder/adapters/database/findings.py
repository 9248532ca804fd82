"""The comparison of the processor's books with ours."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import bindparam, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from payorder.adapters.database.clock import now_milliseconds
from payorder.adapters.database.engine import Conflict
from payorder.adapters.database.tables import findings, payments
from payorder.domain.finding import Finding, FindingKind
from payorder.ports.processor import Charge

_PAYMENTS = select(payments).where(payments.c.id.in_(bindparam("keys", expanding=True)))
_KNOWN = select(findings.c.kind, findings.c.processor_reference).where(
    findings.c.processor_reference.in_(bindparam("references", expanding=True))
)
_ADD = insert(findings).values(opened_at=now_milliseconds())
_COMPARED_AT_ONCE = 500


async def find(connection: AsyncConnection, charges: Sequence[Charge]) -> list[Finding]:
    """What does not fit, recorded or not."""
    found: list[Finding] = []
    for start in range(0, len(charges), _COMPARED_AT_ONCE):
        some = charges[start : start + _COMPARED_AT_ONCE]
        rows = await connection.execute(_PAYMENTS, {"keys": [charge.key for charge in some]})
        ours = {row.id: row for row in rows}
        found += [finding for charge in some if (finding := _finding(charge, ours))]
    return found


async def record(connection: AsyncConnection, found: Sequence[Finding]) -> list[Finding]:
    """Those that were not recorded before, each once."""
    new: dict[tuple[str, str], Finding] = {(finding.kind, finding.reference): finding for finding in found}
    references = sorted({finding.reference for finding in found})
    for start in range(0, len(references), _COMPARED_AT_ONCE):
        some = references[start : start + _COMPARED_AT_ONCE]
        for kind, reference in await connection.execute(_KNOWN, {"references": some}):
            new.pop((kind, reference), None)
    if new:
        rows = [{"kind": f.kind, "processor_reference": f.reference, "payment_id": f.key} for f in new.values()]
        try:
            await connection.execute(_ADD, rows)
        except IntegrityError:
            raise Conflict from None  # Another replica has recorded one of them in between.
    return list(new.values())


def _finding(charge: Charge, ours: Mapping[str, Any]) -> Finding | None:
    payment = ours.get(charge.key)
    if payment is None:
        return Finding(FindingKind.CHARGE_WITHOUT_PAYMENT, charge.key, charge.reference)
    same_amount = (charge.amount.amount_minor, charge.amount.currency.code) == (payment.amount_minor, payment.currency)
    if not same_amount:
        return Finding(FindingKind.AMOUNT_DIFFERS, charge.key, charge.reference)
    if payment.status in ("failed", "cancelled"):
        return Finding(FindingKind.CHARGE_OF_FAILED_PAYMENT, charge.key, charge.reference)
    if payment.status == "succeeded" and payment.processor_reference != charge.reference:
        return Finding(FindingKind.REFERENCE_DIFFERS, charge.key, charge.reference)
    return None  # It fits, or it is open, and then whoever settles it will learn.
