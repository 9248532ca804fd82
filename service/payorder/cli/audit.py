"""`payorder audit verify`."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from payorder.adapters.database.audit_check import AuditCheck, Elsewhere
from payorder.adapters.database.engine import Database
from payorder.adapters.signing import Ed25519Signer, NoSigningKey, PublicKey
from payorder.cli.process import run, settings_or_exit
from payorder.config import Settings
from payorder.domain.errors import Busy
from payorder.workflows.seal_audit_log import SETTLED_AFTER_SECONDS

# How many seals may be late before they count as taken out: what serves may be slow, or be started again.
_SEALS_LATE_MAX = 5


def verify(public_keys: tuple[Path, ...], seals: tuple[str, ...]) -> None:
    settings = settings_or_exit()
    unsealed_seconds_max = SETTLED_AFTER_SECONDS + _SEALS_LATE_MAX * settings.audit_seal_every_seconds
    elsewhere = Elsewhere(_keys(settings, public_keys), _hashes(seals), unsealed_seconds_max)
    try:
        run(_verify(settings, elsewhere))
    except Busy:
        sys.exit("payorder: the database cannot be read")


async def _verify(settings: Settings, elsewhere: Elsewhere) -> None:
    database = Database(settings.database_url, pool_size=1, pool_timeout_seconds=settings.database_pool_timeout_seconds)
    wrong = 0
    try:
        async with database.snapshot() as connection:
            check = AuditCheck(connection, elsewhere)
            async for fault in check.faults():
                wrong += 1
                click.echo(f"{fault.chain} {fault.seq}: {fault.what}")
    finally:
        await database.close()
    click.echo(_summary(check, wrong, are_signatures_checked=bool(elsewhere.keys)))
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


def _hashes(seals: tuple[str, ...]) -> dict[int, bytes]:
    """By number, of NUMBER:HASH."""
    try:
        return {int(number): bytes.fromhex(hash_) for number, _, hash_ in (seal.partition(":") for seal in seals)}
    except ValueError:
        sys.exit("payorder: --seal must be NUMBER:HASH, as in the line of the log that told of it")


def _keys(settings: Settings, paths: tuple[Path, ...]) -> dict[str, PublicKey]:
    """Those of the files, or else the one that this service signs with."""
    try:
        keys = [PublicKey.read(path) for path in paths]
        if not keys and settings.audit_signing_key:
            keys.append(Ed25519Signer.read(Path(settings.audit_signing_key)).public_key)
    except NoSigningKey:
        sys.exit("payorder: a key cannot be read as an Ed25519 key in PEM")
    return {key.key_id: key for key in keys}
