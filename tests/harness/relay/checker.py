"""The outside checker of the way out (I10): tables and what receivers were sent. Imports nothing of the service.

skipped    an event has no delivery to an endpoint that should hear of it
lost       a delivery counts as delivered, and its receiver has never said yes to it
stuck      a delivery is neither delivered nor given up
forgotten  a delivery has ended without the history of all of its attempts
unsigned   a request does not verify with the endpoint's secret
differing  two requests for one event are not the same bytes, or not of one id
invented   a request is for no delivery
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.checker import Finding
from harness.evidence import Row, read_lines, read_table

_PUBLIC_TYPES = {"order": "order.statusChanged"}
_ATTEMPTS_MAX = 10


async def check(database_url: str, ledger: Path, endpoints: Mapping[str, str]) -> list[Finding]:
    """`endpoints`: ids by the names that the receiver knows them by."""
    tables = {
        name: await read_table(database_url, f"SELECT {columns} FROM {name}")  # noqa: S608 - names of this file
        for name, columns in (
            ("events", "id, order_id, type"),
            ("orders", "id, owner_sub"),
            ("webhook_endpoints", "id, owner_sub, event_types"),
            ("webhook_deliveries", "id, endpoint_id, event_id, state, attempts"),
            ("webhook_attempts", "delivery_id, number, delivered"),
        )
    }
    requests = read_lines(ledger)
    checks = (_skipped(tables), _ends(tables, requests, endpoints), _requests(tables, requests, endpoints))
    return [Finding("I10", *found) for each in checks for found in each]


def _skipped(tables: Mapping[str, Sequence[Row]]) -> Iterator[tuple[str, str]]:
    owners = {order["id"]: order["owner_sub"] for order in tables["orders"]}
    written = {(row["endpoint_id"], row["event_id"]) for row in tables["webhook_deliveries"]}
    for event in tables["events"]:
        type_ = _PUBLIC_TYPES.get(event["type"].partition(".")[0], event["type"])
        for endpoint in tables["webhook_endpoints"]:
            is_heard = endpoint["owner_sub"] in (None, owners[event["order_id"]])
            is_wanted = endpoint["event_types"] == "[]" or f'"{type_}"' in endpoint["event_types"]
            if is_heard and is_wanted and (endpoint["id"], event["id"]) not in written:
                yield "skipped", f"{event['id']} for {endpoint['id']}"


def _ends(
    tables: Mapping[str, Sequence[Row]], requests: Sequence[Mapping[str, Any]], endpoints: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    accepted = {(endpoints[each["endpoint"]], each["id"]) for each in requests if each["status"] == 200}
    history: defaultdict[str, dict[int, bool]] = defaultdict(dict)
    for attempt in tables["webhook_attempts"]:
        history[attempt["delivery_id"]][attempt["number"]] = bool(attempt["delivered"])
    for row in tables["webhook_deliveries"]:
        attempts, state = history[row["id"]], row["state"]
        if state == "pending":
            yield "stuck", f"{row['id']} after {row['attempts']} attempts"
        if state == "delivered" and (row["endpoint_id"], row["event_id"]) not in accepted:
            yield "lost", f"{row['id']} of {row['event_id']}"
        if state == "delivered" and True not in attempts.values():
            yield "forgotten", f"{row['id']} was delivered by no attempt"
        if sorted(attempts) != list(range(1, row["attempts"] + 1)):
            yield "forgotten", f"{row['id']} had {row['attempts']} attempts and has {sorted(attempts)}"
        if state == "dead" and len(attempts) < _ATTEMPTS_MAX:
            yield "forgotten", f"{row['id']} was given up after {len(attempts)} attempts"


def _requests(
    tables: Mapping[str, Sequence[Row]], requests: Sequence[Mapping[str, Any]], endpoints: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    written = {(row["endpoint_id"], row["event_id"]) for row in tables["webhook_deliveries"]}
    bodies: dict[str, str] = {}
    for each in requests:
        if not each["signed"]:
            yield "unsigned", each["id"]
        if each["id"] != each["event"] or bodies.setdefault(each["id"], each["body"]) != each["body"]:
            yield "differing", each["id"]
        if (endpoints[each["endpoint"]], each["id"]) not in written:
            yield "invented", each["id"]
