"""One JSON line for each call and each change of state, on standard output.

Lines are built field by field: no request, metadata or exception text is ever handed in whole, because each may quote
a card number. Of a fault the log has its type and where it happened.
"""

import logging
import sys
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

VALUE_LENGTH_MAX = 256


def configure(level: str) -> None:
    """Once, at the start of the process. Libraries that log by the standard library are heard from WARNING on."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _cut,
            structlog.processors.JSONRenderer(serializer=orjson.dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.BytesLoggerFactory(sys.stdout.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_OnlyWhere()])


class CallLog:
    """What is said about calls."""

    def __init__(self, worker: int | None = None) -> None:
        """`worker`: its number, on every line, where several share a port."""
        self._logger = structlog.get_logger(**({} if worker is None else {"worker": worker}))

    def call(self, *, rpc: str, result: str, subject: str | None, request_id: str, duration_seconds: float) -> None:
        self._logger.info(
            "call",
            rpc=rpc,
            result=result,
            subject=subject,
            request_id=request_id,
            duration_ms=round(duration_seconds * 1000, 3),
        )

    def token_refused(self, *, cause: str, request_id: str) -> None:
        self._logger.info("token refused", cause=cause, request_id=request_id)

    def call_limited(self, *, counted: str, request_id: str) -> None:
        self._logger.warning("call limited", counted=counted, request_id=request_id)

    def declines_unusual(self, *, declined: int, expected: int, answered: int) -> None:
        """Of the attempts of a day: somebody may be trying cards too slowly for any limit."""
        self._logger.warning("declines unusual", declined=declined, expected=expected, answered=answered)

    def fault(self, fault: BaseException, *, request_id: str | None = None) -> None:
        self._logger.error("fault", request_id=request_id, faults=[_describe(each) for each in _chain(fault)])

    def change(self, what: str, subject_id: str) -> None:
        """What was written, of which order, payment, refund or webhook."""
        self._logger.info("change", what=what, id=subject_id)

    def finding(self, kind: str, *, payment_id: str) -> None:
        """The books differ: somebody must look."""
        self._logger.error("finding", kind=kind, payment_id=payment_id)

    def event(self, name: str, **fields: str | int) -> None:
        """A change in the life of the process."""
        self._logger.info(name, **fields)


def _describe(fault: BaseException) -> dict[str, Any]:
    frames = [
        f"{frame.f_code.co_filename.rpartition('/')[2]}:{line} {frame.f_code.co_name}"
        for frame, line in walk_tb(fault.__traceback__)
    ]
    return {"type": type(fault).__name__, "frames": frames[-12:]}


def _chain(fault: BaseException | None) -> Iterator[BaseException]:
    while fault is not None:
        yield fault
        fault = fault.__cause__


def _cut(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        if isinstance(value, str) and len(value) > VALUE_LENGTH_MAX:
            event[key] = value[:VALUE_LENGTH_MAX]
    return event


class _OnlyWhere(logging.Handler):
    """Of what libraries log, the place and the kind; their texts may quote what we handed them."""

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        faults = [_describe(each) for each in _chain(fault)]
        structlog.get_logger().warning("library", logger=record.name, line=record.lineno, faults=faults)
