"""docs/webhooks/verify.md: what stands there runs, accepts what is signed and nothing else."""

import asyncio
import base64
import json
import os
import re
import shutil
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import standardwebhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from payorder.domain.webhook_signature import callback_headers, secret_of, signed_headers
from payorder.ports.receivers import Receivers
from support.receivers import receivers

PAGE = Path(__file__).parents[2] / "docs/webhooks/verify.md"
BLOCKS = re.findall(r"^```(python|js)\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
PYTHON, LIBRARY, JAVASCRIPT, CALLBACK = (text for _, text in BLOCKS)

PROGRAMS = {"python": (sys.executable, "receiver.py", PYTHON), "javascript": ("node", "receiver.mjs", JAVASCRIPT)}
READY_SECONDS = 60.0

SECRET, PREVIOUS, STRANGE = (secret_of(bytes([number]) * 32) for number in range(3))
ID = "01a2038d-0381-70ee-9230-907ce2a7f446"
BODY = json.dumps({"eventId": ID, "eventType": "payment.succeeded", "data": {"name": "é"}}).encode()


class Program:
    """A receiver of the page, as its reader runs it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.url = ""

    async def line(self) -> str:
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_SECONDS):
            return (await self._process.stdout.readline()).decode().strip()


@asynccontextmanager
async def running(language: str, folder: Path) -> AsyncIterator[Program]:
    command, name, text = PROGRAMS[language]
    if shutil.which(command) is None:
        pytest.skip(f"there is no {command} on this machine")
    path = folder / name
    path.write_text(text)
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "WEBHOOK_SECRET": SECRET.reveal()}
    process = await asyncio.create_subprocess_exec(
        command, path, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        program = Program(process)
        program.url = f"http://127.0.0.1:{(await program.line()).removeprefix('port ')}/hook"
        yield program
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("language", PROGRAMS)
async def test_a_program_of_the_page_accepts_what_is_signed_and_nothing_else(language, tmp_path):
    async with running(language, tmp_path) as program, receivers() as adapter:
        now = int(time.time())
        signed = signed_headers(ID, now, BODY, [SECRET])

        async def status(headers, body=BODY, to: Receivers = adapter) -> int | None:
            return (await to.send(program.url, headers, body)).status

        assert 400 == await status(signed, BODY.replace(b"succeeded", b"succeedee"))
        assert 400 == await status(signed | {"webhook-id": ID.replace("4", "5")})
        assert 400 == await status(signed | {"webhook-timestamp": str(now + 1)})
        assert 400 == await status(signed | {"webhook-timestamp": "now"})
        assert 400 == await status(signed | {"webhook-signature": "v1,"})
        assert 400 == await status({})
        assert 400 == await status(signed_headers(ID, now, BODY, [STRANGE]))
        assert 400 == await status(signed_headers(ID, now - 400, BODY, [SECRET]))
        assert 400 == await status(signed_headers(ID, now + 400, BODY, [SECRET]))
        assert 204 == await status(signed)
        assert 204 == await status(signed_headers(ID, now, BODY, [PREVIOUS, SECRET]))
        # The first that it says is of the first that was signed.
        assert [f"payment.succeeded {ID}"] * 2 == [await program.line(), await program.line()]


def test_the_line_with_the_library_accepts_what_is_signed_and_nothing_else():
    names = {"standardwebhooks": standardwebhooks, "secret": SECRET.reveal()}
    names["headers"] = signed_headers(ID, int(time.time()), BODY, [SECRET])
    names["body"] = BODY
    exec(LIBRARY, names)  # noqa: S102 - the page's own
    assert json.loads(BODY) == names["event"]
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        exec(LIBRARY, names | {"body": BODY + b" "})  # noqa: S102 - the page's own


def test_the_lines_for_callbacks_accept_what_is_signed_and_nothing_else():
    key = Ed25519PrivateKey.generate()
    x = base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")
    names = {"base64": base64, "Ed25519PublicKey": Ed25519PublicKey, "jwk": {"kty": "OKP", "crv": "Ed25519", "x": x}}
    names["headers"] = callback_headers(ID, int(time.time()), BODY, key.sign)
    exec(CALLBACK, names | {"body": BODY})  # noqa: S102 - the page's own
    with pytest.raises(InvalidSignature):
        exec(CALLBACK, names | {"body": BODY + b" "})  # noqa: S102 - the page's own
