"""Whom the service believes, and with what it signs."""

from collections.abc import Container
from pathlib import Path

from payorder.adapters.signing import Ed25519Signer, NoSigningKey, PublicKey, read_key_set
from payorder.adapters.tokens.files import DisabledSubjects, FileKeySet
from payorder.adapters.tokens.keys import NoKeySet
from payorder.adapters.tokens.verifier import JwtVerifier, KeySet, TokenRules
from payorder.config import Environment, Settings, SettingsFault
from payorder.observability.logging import CallLog


def tokens(settings: Settings, log: CallLog) -> JwtVerifier:
    rules = TokenRules(
        audience=settings.audience,
        types=frozenset(settings.token_types.lower().split()),
        lifetime_seconds_max=settings.token_lifetime_seconds_max,
    )
    return JwtVerifier({issuer: _keys(settings, issuer, log) for issuer in settings.issuers}, rules)


def _keys(settings: Settings, issuer: str, log: CallLog) -> KeySet:
    if settings.jwks is None or settings.jwks.startswith(("http://", "https://")):
        return _remote_keys(settings, issuer, log)
    try:
        return FileKeySet(Path(settings.jwks))
    except (OSError, NoKeySet) as error:
        raise SettingsFault("PAYORDER_JWKS: cannot be read as a key set (RFC 7517)") from error


def _remote_keys(settings: Settings, issuer: str, log: CallLog) -> KeySet:
    from payorder.adapters.tokens import remote  # noqa: PLC0415 - an HTTP client costs a quarter of a second to import

    allows_http = settings.env is Environment.DEVELOPMENT
    read = remote.key_set_at(settings.jwks) if settings.jwks else remote.key_set_of(issuer, allows_http=allows_http)
    return remote.RemoteKeySet(read, on_failure=lambda cause: log.event("no keys", issuer=issuer, cause=cause))


def shut_out(settings: Settings) -> Container[str]:
    """Subjects. Raises SettingsFault."""
    if settings.disabled_subjects is None:
        return frozenset()
    try:
        return DisabledSubjects(settings.disabled_subjects)
    except (OSError, ValueError) as error:
        raise SettingsFault("PAYORDER_DISABLED_SUBJECTS: cannot be read as lines of UTF-8") from error


def audit_signer(settings: Settings, log: CallLog) -> Ed25519Signer | None:
    """None without a key, which only development can be. Raises SettingsFault."""
    if settings.audit_signing_key is not None:
        return _load_signer("PAYORDER_AUDIT_SIGNING_KEY", settings.audit_signing_key)
    if settings.env is Environment.PRODUCTION:
        raise SettingsFault("PAYORDER_AUDIT_SIGNING_KEY: must be given in production")
    log.event("audit log not sealed", reason="PAYORDER_AUDIT_SIGNING_KEY is not set")
    return None


def receipt_signer(settings: Settings, log: CallLog) -> Ed25519Signer:
    """In development a key that is forgotten with the process will do. Raises SettingsFault."""
    if settings.receipt_signing_key is not None:
        return _load_signer("PAYORDER_RECEIPT_SIGNING_KEY", settings.receipt_signing_key)
    if settings.env is Environment.PRODUCTION:
        raise SettingsFault("PAYORDER_RECEIPT_SIGNING_KEY: must be given in production")
    log.event("receipts signed with a key of this process", reason="PAYORDER_RECEIPT_SIGNING_KEY is not set")
    return Ed25519Signer.generate()


def receipt_keys(settings: Settings, signer: Ed25519Signer) -> list[PublicKey]:
    """The key that signs, and those of before, each once. Raises SettingsFault."""
    try:
        previous = read_key_set(Path(settings.receipt_keys_previous)) if settings.receipt_keys_previous else []
    except NoSigningKey as error:
        raise SettingsFault("PAYORDER_RECEIPT_KEYS_PREVIOUS: cannot be read as a key set (RFC 7517)") from error
    return list({key.key_id: key for key in (signer.public_key, *previous)}.values())


def _load_signer(setting: str, path: str) -> Ed25519Signer:
    try:
        return Ed25519Signer.read(Path(path))
    except NoSigningKey as error:
        raise SettingsFault(f"{setting}: cannot be read as an Ed25519 private key in PEM") from error
