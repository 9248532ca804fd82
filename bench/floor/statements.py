"""Claim and settle, each in one statement: the rows that the service writes, and nothing that it looks at besides.

Kept apart from the service's own statements on purpose: the floor does not move when the service does. What the service
has to write is to be written here too, or the comparison is none.
"""

# 1 payment, 2 order, 3 owner, 4 amount, 5 currency, 6 source, 7 its last digits, 8 at, 9 milliseconds until a poll.
CLAIM = """
WITH taken AS (
    UPDATE orders
    SET active_payment_id = $1, latest_payment_id = $1, audit_seq = audit_seq + 1, audit_previous = audit_hash,
        audit_hash = sha256(audit_hash || convert_to($1, 'UTF8')), updated_at = $8
    WHERE id = $2 AND owner_sub = $3 AND status = 'placed' AND active_payment_id IS NULL
        AND total_minor = $4 AND currency = $5
    RETURNING audit_seq, audit_previous, audit_hash
), audited AS (
    INSERT INTO audit_log (id, chain, seq, at, actor, kind, object_id, to_state, outcome, prev_hash, hash)
    SELECT gen_random_uuid()::text, $2, audit_seq, $8, $3, 'payment', $1, 'processing', 'done', audit_previous,
        audit_hash
    FROM taken
)
INSERT INTO payments (
    id, order_id, owner_sub, caller, status, amount_minor, currency, currency_digits, processor,
    source_kind, source_last4, source_masked, created_at, claimed_at, next_poll_at
)
SELECT $1, $2, $3, $3, 'processing', $4, $5, 2, 'sandbox', 'card', $7, $6, $8, $8, $8::bigint + $9
FROM taken
"""

# 1 payment, 2 order, 3 reference, 4 amount, 5 reply, 6 at.
SETTLE = """
WITH released AS (
    UPDATE orders
    SET active_payment_id = NULL, status = 'approved', paid_payment_id = $1,
        event_seq = event_seq + 2, audit_seq = audit_seq + 2, audit_previous = audit_hash,
        audit_hash = sha256(sha256(audit_hash || convert_to($1, 'UTF8')) || convert_to($2, 'UTF8')), updated_at = $6
    WHERE id = $2 AND active_payment_id = $1
    RETURNING event_seq, audit_seq, audit_previous, audit_hash,
        sha256(audit_previous || convert_to($1, 'UTF8')) AS first_hash
), settled AS (
    UPDATE payments
    SET status = 'succeeded', processor_reference = $3, captured_minor = $4, reply_code = 0, reply = $5,
        next_poll_at = NULL, settled_at = $6
    FROM released
    WHERE id = $1 AND status IN ('processing', 'unknown')
    RETURNING id
), received AS (
    INSERT INTO receipts (id, payment_id, order_id, created_at) SELECT id, id, $2, $6 FROM settled
), audited AS (
    INSERT INTO audit_log (id, chain, seq, at, actor, kind, object_id, from_state, to_state, outcome, prev_hash, hash)
    SELECT gen_random_uuid()::text, $2, audit_seq - 1, $6, 'payorder', 'payment', $1, 'processing', 'succeeded', 'done',
        audit_previous, first_hash
    FROM released
    UNION ALL
    SELECT gen_random_uuid()::text, $2, audit_seq, $6, 'payorder', 'order', $2, 'placed', 'approved', 'done',
        first_hash, audit_hash
    FROM released
)
INSERT INTO events (order_id, seq, id, type, subject_id, from_state, actor, created_at)
SELECT $2, event_seq - 1, gen_random_uuid()::text, 'payment.succeeded', $1, 'processing', 'payorder', $6 FROM released
UNION ALL
SELECT $2, event_seq, gen_random_uuid()::text, 'order.approved', $2, 'placed', 'payorder', $6 FROM released
"""
