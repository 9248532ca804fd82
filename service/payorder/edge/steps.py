"""The steps of every call, in their order: observe, answer errors, authenticate, allow, validate, check the time.

Our own services pass all of them; health and reflection, which serve no data, pass none.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Container
from contextlib import aclosing, asynccontextmanager, suppress
from random import SystemRandom
from time import perf_counter
from typing import Any, NoReturn
from uuid import UUID, uuid4

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc.status_pb2 import Status

from payorder.domain.errors import (
    DeadlineTooShort,
    MalformedRequest,
    OrderNotFound,
    RateLimited,
    Refusal,
    ScopeMissing,
    SubjectDisabled,
    Unauthenticated,
    WebhookNotFound,
)
from payorder.domain.origin import Origin
from payorder.edge.call_records import CallRecords
from payorder.edge.caller import current_subject, set_current_caller, token_seconds_left
from payorder.edge.certificate import forwarded_certificate
from payorder.edge.metadata import metadata_values, read_metadata
from payorder.edge.methods import METHODS, Method
from payorder.edge.replies import REPLAYED, ErrorReply, to_bytes
from payorder.edge.status import Internal, Row, reason_name, retry_after_seconds_of, row_of, status_of
from payorder.edge.validation import validate
from payorder.observability.logging import CallLog
from payorder.ports.tokens import Caller, TokenVerifier

Context = grpc.aio.ServicerContext[Any, Any]
# Of a stream there is no answer: its messages have been written.
Answer = Message | None
Handler = Callable[[Message, Context], Awaitable[Answer]]

_BEARER = "bearer "
# A row that is somebody else's costs the database some microseconds more than none: they are lost in a random wait.
_NOT_FOUND_SECONDS_MAX = 0.004
# How long a stream on which nothing happens outlives that its subject is disabled, at the most.
_LOOK_EVERY_SECONDS = 1.0
_random = SystemRandom()


class _Unreadable:
    """Stands for a request that is no message of its type, until its caller is known and can be told."""


def _readable(deserialize: Callable[[bytes], Message]) -> Callable[[bytes], Message | _Unreadable]:
    """Left to itself, grpc.aio answers UNKNOWN with the text of the exception."""

    def read(data: bytes) -> Message | _Unreadable:
        try:
            return deserialize(data)
        except DecodeError:
            return _Unreadable()

    return read


def _written(
    behaviour: Callable[[Message, Context], AsyncGenerator[Message, None]], disabled: Container[str]
) -> Handler:
    """A stream as a handler like any other, which ends when its messages do, or its caller would be refused."""

    async def write(request: Message, context: Context) -> None:
        async with _while_not_refused(disabled), aclosing(behaviour(request, context)) as messages:
            async for message in messages:
                _refuse_disabled(current_subject(), disabled)
                await context.write(message)

    return write


@asynccontextmanager
async def _while_not_refused(disabled: Container[str]) -> AsyncIterator[None]:
    """Raises Unauthenticated as soon as the token expires, and SubjectDisabled soon after its subject is."""
    limit = asyncio.timeout(token_seconds_left())
    looking = asyncio.create_task(_expire_when_disabled(limit, disabled))
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise SubjectDisabled if looking.done() else Unauthenticated("token expired during the stream") from None
    finally:
        looking.cancel()


async def _expire_when_disabled(limit: asyncio.Timeout, disabled: Container[str]) -> None:
    """A stream has to end also when no message comes, or when none can be written."""
    while current_subject() not in disabled:  # noqa: ASYNC110 - a file tells nobody that it has changed
        await asyncio.sleep(_LOOK_EVERY_SECONDS)
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())


class CallSteps:
    """Runs a handler of ours inside the steps. Only this class ends a call with an error."""

    def __init__(
        self,
        *,
        tokens: TokenVerifier,
        disabled: Container[str],
        believes_certificates: bool,
        records: CallRecords,
        log: CallLog,
    ) -> None:
        """`disabled` are subjects; `believes_certificates`: whoever reaches us directly is Envoy."""
        self._tokens = tokens
        self._disabled = disabled
        self._believes_certificates = believes_certificates
        self._records = records
        self._log = log

    def around(self, method_name: str, handler: Any) -> Any:
        """The handler of a method (RpcMethodHandler) with the steps in front of it."""
        assert not handler.request_streaming, "the steps are those of a method with one request"
        method = METHODS.get(method_name)
        is_stream = handler.response_streaming
        behaviour = _written(handler.unary_stream, self._disabled) if is_stream else handler.unary_unary

        async def run(request: Message, context: Context) -> Answer:
            return await self._observed(method, behaviour, request, context)

        return handler._replace(
            **{"unary_stream" if is_stream else "unary_unary": run},
            request_deserializer=_readable(handler.request_deserializer),
            # Every answer leaves with its maps in order: a replay is the same bytes as the first answer.
            response_serializer=to_bytes,
        )

    async def _observed(self, method: Method | None, handler: Handler, request: Message, context: Context) -> Answer:
        read_metadata(context)
        call = _Call()
        try:
            return await self._answered(call, method, handler, request, context)
        finally:
            # A call whose result nobody set was cut off: by its deadline, its caller or a connection.
            self._log.call(
                rpc=method.name if method else "unknown",
                result=call.result,
                subject=call.subject,
                request_id=call.request_id,
                duration_seconds=perf_counter() - call.started,
            )

    async def _answered(
        self, call: "_Call", method: Method | None, handler: Handler, request: Message, context: Context
    ) -> Answer:
        try:
            answer = await self._recorded(call, method, handler, request, context)
        except ErrorReply as error:
            call.result = reason_name(error.row)
            replayed = [REPLAYED] if error.is_replay else []
            await _abort(context, error.row, error.status, error.row.retry_after_seconds, *replayed)
        except Refusal as refusal:
            if isinstance(refusal, Unauthenticated):
                self._log.token_refused(cause=refusal.cause, request_id=call.request_id)
            if isinstance(refusal, RateLimited):
                self._log.call_limited(counted=refusal.counted, request_id=call.request_id)
            if isinstance(refusal, OrderNotFound | WebhookNotFound):
                await asyncio.sleep(_random.uniform(0, _NOT_FOUND_SECONDS_MAX))
            call.result = reason_name(row_of(refusal))
            await _abort(context, row_of(refusal), status_of(refusal), retry_after_seconds_of(refusal))
        except Exception as fault:  # noqa: BLE001 - any fault becomes INTERNAL, and its text goes no further
            self._log.fault(fault, request_id=call.request_id)
            call.result = "INTERNAL"
            internal = Internal(call.request_id)
            await _abort(context, row_of(internal), status_of(internal), None)
        call.result = "OK"
        return answer

    async def _recorded(
        self, call: "_Call", method: Method | None, handler: Handler, request: Message, context: Context
    ) -> Answer:
        """What the audit log tells of a call is there before it is answered: no row, no answer."""
        try:
            answer = await self._allowed(call, method, handler, request, context)
        except Refusal as refusal:
            if method is not None and call.subject is not None:
                await self._records.add_refusal(method, Origin(call.subject, call.request_id), refusal, request)
            raise
        if method is not None and method.is_recorded and call.subject is not None:
            await self._records.add_read(method, Origin(call.subject, call.request_id), request)
        return answer

    async def _allowed(
        self, call: "_Call", method: Method | None, handler: Handler, request: Message, context: Context
    ) -> Answer:
        if method is None or method.scope is not None:
            await self._admit(call, method)
        if isinstance(request, _Unreadable):
            raise MalformedRequest("The request is not a message of its type.")
        validate(request)
        _refuse_when_too_late(method, context)
        return await handler(request, context)

    async def _admit(self, call: "_Call", method: Method | None) -> None:
        caller = await self._authenticate()
        call.subject = caller.subject
        _refuse_disabled(caller.subject, self._disabled)
        _refuse_without_scope(method, caller)
        set_current_caller(caller, call.request_id)

    async def _authenticate(self) -> Caller:
        values = metadata_values("authorization")
        if len(values) != 1:
            raise Unauthenticated("no authorization" if not values else "several authorizations")
        value = values[0]
        if value[: len(_BEARER)].lower() != _BEARER:
            raise Unauthenticated("not a bearer token")
        certificate = forwarded_certificate() if self._believes_certificates else None
        return await self._tokens.verify(value[len(_BEARER) :].strip(" "), certificate)


class _Call:
    """What the log will say of a call."""

    def __init__(self) -> None:
        self.started = perf_counter()
        self.request_id = _request_id()
        self.result = "CANCELLED"
        self.subject: str | None = None


def _request_id() -> str:
    """The edge's x-request-id if it is a UUID, else a new one: free text of a caller is never logged."""
    for value in metadata_values("x-request-id")[:1]:
        with suppress(ValueError):
            return str(UUID(value))
    return str(uuid4())


def _refuse_disabled(subject: str, disabled: Container[str]) -> None:
    if subject in disabled:
        raise SubjectDisabled


def _refuse_without_scope(method: Method | None, caller: Caller) -> None:
    if method is None or method.scope is None:
        raise ScopeMissing("none")
    if method.scope not in caller.scopes:
        raise ScopeMissing(method.scope)


def _refuse_when_too_late(method: Method | None, context: Context) -> None:
    left = context.time_remaining()
    if method is not None and left is not None and left < method.seconds_min:
        raise DeadlineTooShort


async def _abort(
    context: Context, row: Row, status: Status, retry_after_seconds: int | None, *further: tuple[str, str]
) -> NoReturn:
    trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", to_bytes(status)), *further]
    if retry_after_seconds is not None:
        trailers.append(("retry-after", str(retry_after_seconds)))
    await context.abort(row.code, row.detail, tuple(trailers))
