"""A method that is served and has no entry in the table of scopes is denied, whoever calls."""

from pathlib import Path

import grpc
from google.protobuf.empty_pb2 import Empty

from payorder.adapters.system import SystemClock
from payorder.adapters.tokens.files import FileKeySet
from payorder.adapters.tokens.verifier import JwtVerifier, TokenRules
from payorder.config import DEVELOPMENT_ISSUER
from payorder.edge.call_records import CallRecords
from payorder.edge.steps import CallSteps
from payorder.local.issuer import Issuer
from payorder.local.up import AUDIENCE
from payorder.observability.logging import CallLog
from payorder.ports.audit import CallRecord

EVERY_SCOPE = "read:orders write:orders act:any-owner admin webhooks"
FORGOTTEN = "Forgotten"


async def never(_request: Empty, _context: object) -> Empty:
    raise AssertionError("a method without an entry was called")


async def never_recorded(_call: CallRecord) -> None:
    raise AssertionError("a refused call of no administrator was recorded")


async def test_a_method_without_an_entry_is_denied_to_everybody(tmp_path: Path) -> None:
    issuer = Issuer(tmp_path)
    rules = TokenRules(audience=AUDIENCE, types=frozenset({"at+jwt"}), lifetime_seconds_max=86_400)
    verifier = JwtVerifier({DEVELOPMENT_ISSUER: FileKeySet(issuer.jwks_path)}, rules)
    handler = grpc.unary_unary_rpc_method_handler(never, Empty.FromString, Empty.SerializeToString)
    service = "payments.v1.OrderService"
    records = CallRecords(never_recorded, SystemClock())
    steps = CallSteps(tokens=verifier, disabled=(), believes_certificates=False, records=records, log=CallLog())
    stepped = steps.around(f"/{service}/{FORGOTTEN}", handler)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {FORGOTTEN: stepped}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            metadata = (("authorization", f"Bearer {issuer.token(subject='alice', scope=EVERY_SCOPE)}"),)
            call = channel.unary_unary(f"/{service}/{FORGOTTEN}")(b"", metadata=metadata, timeout=10)
            assert grpc.StatusCode.PERMISSION_DENIED == await call.code()
    finally:
        await server.stop(None)
