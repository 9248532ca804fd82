"""Where a service process may be killed or stopped: points that its own statements and its processor's calls pass.

Nothing in the service knows of them. Points of the database are found by the text of the statements, with SQLAlchemy's
class-level events and around the hot path's statements; points of the processor's calls lie in the plug-in.
"""

import json
import os
import signal
import socket
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import Pool

from payorder.adapters.database import hot_path

POINTS = (
    "claim.before_commit",
    "claim.after_commit",
    "charge.before_send",
    "charge.after_answer",
    "settle.before_statement",
    "settle.before_commit",
    "settle.after_commit",
    "cancel.before_send",
    "cancel.after_answer",
)
PAUSES = (
    "claim.after_commit",
    "charge.before_send",
    "charge.after_answer",
    "cancel.before_send",
    "cancel.after_answer",
    "settle.after_commit",
)


class Armed:
    """One point at which this process ends, or stops, at its nth arrival; then it is told to the driver."""

    def __init__(self) -> None:
        self.point = ""
        self.arrivals_left = 0
        self.action = "kill"
        self.reports: socket.socket | None = None


_armed = Armed()


def arm(point: str, *, nth: int, action: str, reports: socket.socket) -> None:
    _armed.point, _armed.arrivals_left, _armed.action, _armed.reports = point, nth, action, reports


def reach(point: str) -> None:
    if point != _armed.point:
        return
    _armed.arrivals_left -= 1
    if _armed.arrivals_left == 0:
        assert _armed.reports is not None
        _armed.reports.send(json.dumps({"event": _armed.action, "pid": os.getpid(), "point": point}).encode())
        os.kill(os.getpid(), signal.SIGKILL if _armed.action == "kill" else signal.SIGSTOP)


def phase_of(statement: str) -> str | None:
    """Which phase of the flow writes this: claim, settle, mark (open, not answered), lease or refund."""
    text = " ".join(statement.split())
    if "INSERT INTO payments" in text:
        return "claim"
    if "INSERT INTO refunds" in text or "UPDATE refunds" in text:
        return "refund"
    if "UPDATE payments SET" in text:
        written = text.partition("UPDATE payments SET")[2].partition(" WHERE ")[0]
        return "settle" if "processor_reference" in written else "mark" if "status" in written else "lease"
    return None


def watch_the_database() -> None:
    """Call `reach` around the statements and commits of every engine of this process."""
    phases: dict[int, str] = {}

    @event.listens_for(Engine, "before_cursor_execute")
    def _before(connection: Connection, _cursor: Any, statement: str, *_rest: Any) -> None:
        phase = phase_of(statement)
        if phase is not None:
            if phases.get(_id(connection)) != phase:
                reach(f"{phase}.before_statement")
            phases[_id(connection)] = phase

    @event.listens_for(Engine, "commit")
    def _commit(connection: Connection) -> None:
        if phase := phases.get(_id(connection)):
            reach(f"{phase}.before_commit")

    @event.listens_for(Engine, "rollback")
    def _rollback(connection: Connection) -> None:
        if not connection.invalidated:
            phases.pop(_id(connection), None)

    @event.listens_for(Pool, "checkin")
    def _checkin(driver_connection: Any, _record: Any) -> None:
        # The first thing that happens on a connection after its COMMIT.
        if phase := phases.pop(id(driver_connection), None):
            reach(f"{phase}.after_commit")


def watch_the_hot_path() -> None:
    """A statement that is a transaction by itself: the last moment before its COMMIT that this process can choose."""

    def make(run: Any) -> Any:
        async def _run(self: Any, statement: str, *values: Any) -> bool:
            phase = phase_of(statement)
            reach(f"{phase}.before_statement")
            reach(f"{phase}.before_commit")
            done: bool = await run(self, statement, *values)
            if done:
                reach(f"{phase}.after_commit")
            return done

        return _run

    hot_path._Connections.run = make(hot_path._Connections.run)


def _id(connection: Connection) -> int:
    return id(connection.connection.dbapi_connection)
