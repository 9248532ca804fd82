"""`payorder audit verify`."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click

from payorder.adapters.database.audit_check import AuditCheck
from payorder.adapters.database.engine import Database
from payorder.adapters.signing import Ed25519Signer, NoSigningKey, PublicKey
from payorder.cli.process import run, settings_or_exit
from payorder.config import Settings
from payorder.domain.errors import Busy


def verify(public_keys: tuple[Path, ...]) -> None:
    settings = settings_or_exit()
    keys = _keys(settings, public_keys)
    try:
        run(_verify(settings, keys))
    except Busy:
        sys.exit("payorder: the database cannot be read")


async def _verify(settings: Settings, keys: Mapping[str, PublicKey]) -> None:
    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    wrong = 0
    try:
        async with database.snapshot() as connection:
            check = AuditCheck(connection, keys)
            async for fault in check.faults():
                wrong += 1
                click.echo(f"{fault.chain} {fault.seq}: {fault.what}")
    finally:
        await database.close()
    click.echo(_summary(check, wrong, are_signatures_checked=bool(keys)))
    if wrong:
        sys.exit(1)


def _summary(check: AuditCheck, wrong: int, *, are_signatures_checked: bool) -> str:
    signatures = "" if are_signatures_checked else ", whose signatures were not checked: no key was given"
    sealed_until = datetime.fromtimestamp(check.sealed_until // 1000, UTC).isoformat()
    return "\n".join(
        (
            f"{check.entries} entries in {check.chains} chains",
            f"{check.seals} seals{signatures}",
            f"{check.entries - check.sealed_entries} entries since the last seal, of {sealed_until}"
            if check.seals
            else "no entry is sealed",
            f"{wrong} wrong" if wrong else "nothing is wrong",
        )
    )


def _keys(settings: Settings, paths: tuple[Path, ...]) -> dict[str, PublicKey]:
    """Those of the files, or else the one that this service signs with."""
    try:
        keys = [PublicKey.read(path) for path in paths]
        if not keys and settings.audit_signing_key:
            keys.append(Ed25519Signer.read(Path(settings.audit_signing_key)).public_key)
    except NoSigningKey:
        sys.exit("payorder: a key cannot be read as an Ed25519 key in PEM")
    return {key.key_id: key for key in keys}
