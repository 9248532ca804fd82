"""Settings from the environment: `PAYORDER_*`, all faults reported at once. Nothing else reads the environment."""

import base64
import binascii
import json
import os
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from payorder.domain.secret import Secret

PREFIX = "PAYORDER_"

# The issuer of a key in a file of the developer's, which has no address. Never trusted in production.
DEVELOPMENT_ISSUER = "urn:payorder:development-issuer"


FINGERPRINT_KEY_LENGTH_MIN = 32
# With these, libraries write what they are handed to standard error, card numbers too.
_TELL_ALL = ("GRPC_TRACE", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE")
SEALING_KEY_BYTES = 32
# What seals secrets where nobody has given a key, which only development can be: everybody knows it.
_DEVELOPMENT_SEALING_KEY = base64.urlsafe_b64encode(b"development".ljust(SEALING_KEY_BYTES, b".")).decode()
SELLER_LINES_MAX = 6
SELLER_LINE_LENGTH_MAX = 80
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Environment(StrEnum):
    DEVELOPMENT = "development"
    PRODUCTION = "production"


class SettingsFault(Exception):
    """What is wrong with the settings, one line for each fault; no line repeats a value."""


def _from_json(value: object) -> object:
    # Left to pydantic-settings, text that is not JSON would end the start before the other faults are found.
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be a JSON object of strings") from None


def _to_lines(value: str | None) -> str | None:
    """Line feeds are what files of environments have no room for, so `|` stands for them there."""
    lines = [line.strip() for line in (value or "").split("|")]
    if lines == [""]:
        return None
    if len(lines) > SELLER_LINES_MAX or not all(map(_is_line_of_a_seller, lines)):
        raise ValueError(
            f"must be 1 to {SELLER_LINES_MAX} lines with | between them, each of 1 to {SELLER_LINE_LENGTH_MAX}"
            " characters, without those of Unicode's category C"
        )
    return "\n".join(lines)


def _is_line_of_a_seller(line: str) -> bool:
    """As of the texts of callers, of which none has characters of the general category C either."""
    is_shown = not any(unicodedata.category(character).startswith("C") for character in line)
    return is_shown and 1 <= len(line) <= SELLER_LINE_LENGTH_MAX


class Settings(BaseSettings):
    """Every setting, with its unit in its name. Production is the default, because it is the careful one."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, hide_input_in_errors=True)

    env: Environment = Environment.PRODUCTION
    listen: str = "127.0.0.1:50051"
    # Whether somebody else sees to TLS between the callers and `listen`.
    listen_plaintext: bool = False
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"

    database_url: Annotated[str, Field(pattern="^(sqlite|postgresql)(\\+[a-z]+)?://")] = "sqlite:///payorder.db"
    database_pool_size: Annotated[int, Field(ge=1, le=100)] = 10
    database_pool_timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 1.0

    issuer: Annotated[str, Field(pattern=r"\S", description="one issuer, or several with spaces between them")]
    audience: str = "payorder"
    jwks: Annotated[str | None, Field(description="path or http(s) URL of the key set of the one issuer")] = None
    token_types: Annotated[str, Field(pattern=r"^(at\+jwt|JWT|at\+jwt JWT|JWT at\+jwt)$")] = "at+jwt"  # noqa: S105 - a type
    disabled_subjects: Path | None = None
    forwarded_client_cert: bool = False
    token_lifetime_seconds_max: Annotated[int, Field(gt=0)] = 24 * 60 * 60

    processor: str | None = None
    processor_options: Annotated[Mapping[str, str], NoDecode, BeforeValidator(_from_json)] = {}
    charge_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 20.0
    send_within_seconds: Annotated[float, Field(gt=0, le=10)] = 2.0
    answer_within_seconds: Annotated[float, Field(gt=0, le=60)] = 8.0
    reconcile_after_seconds: Annotated[float, Field(gt=0, le=300)] = 25.0
    reconcile_every_seconds: Annotated[float, Field(gt=0)] = 1.0
    compare_every_seconds: Annotated[float, Field(gt=0)] = 60.0

    fingerprint_key: SecretStr | None = None
    fingerprint_key_previous: SecretStr | None = None

    webhook_secret_keys: Annotated[
        SecretStr | None, Field(description="one key, or several with spaces between them")
    ] = None
    webhook_networks_allowed: Annotated[str, Field(description="of receivers inside: CIDRs with spaces between")] = ""
    webhook_networks_allowed_to: Literal["services", "everybody"] = "services"
    webhook_ports: Annotated[str, Field(pattern=r"^(any|[0-9]{1,5}( [0-9]{1,5})*)$")] = "443"
    webhook_sends_here: bool = True
    webhook_poll_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    webhook_sends_max: Annotated[int, Field(ge=8, le=10_000)] = 512
    webhook_endpoints_max: Annotated[int, Field(ge=0)] = 20
    # Retries take up to ten days, if a receiver always asks for a day.
    webhook_kept_days: Annotated[int, Field(ge=14, le=3650)] = 30

    audit_signing_key: Annotated[str | None, Field(description="path of an Ed25519 private key in PEM")] = None
    audit_seal_every_seconds: Annotated[float, Field(gt=0)] = 60.0

    receipt_signing_key: Annotated[str | None, Field(description="path of an Ed25519 private key in PEM")] = None
    receipt_keys_previous: Annotated[str | None, Field(description="path of a key set (RFC 7517)")] = None
    seller: Annotated[str | None, AfterValidator(_to_lines), Field(description="its lines, with | between them")] = None
    public_url: Annotated[str, Field(pattern=r"^(https?://[^\s?#]*[^\s?#/])?$")] = ""

    declines_per_order_max: Annotated[int, Field(ge=0)] = 5
    attempts_per_owner_max: Annotated[int, Field(ge=0, le=1000)] = 10
    attempts_per_source_max: Annotated[int, Field(ge=0, le=1000)] = 10
    limits_window_seconds: Annotated[float, Field(gt=0)] = 3600.0

    alert_declines_per_day_max: Annotated[int, Field(ge=0)] = 100
    alert_decline_ratio_max: Annotated[float, Field(ge=1)] = 2.0
    alert_every_seconds: Annotated[float, Field(gt=0)] = 600.0

    charges_max: Annotated[int, Field(ge=1)] = 4096
    backlog_max: Annotated[int, Field(ge=1)] = 256
    request_bytes_max: Annotated[int, Field(ge=1024)] = 64 * 1024
    calls_max: Annotated[int, Field(ge=1)] = 8192
    # The edge cuts streams off after ten minutes, and those on which nothing is sent for one.
    watches_max: Annotated[int, Field(ge=0, le=10_000)] = 1000
    watches_per_caller_max: Annotated[int, Field(ge=1)] = 100
    watch_life_seconds: Annotated[float, Field(gt=0, le=600)] = 600.0
    watch_quiet_seconds: Annotated[float, Field(gt=0, le=30)] = 15.0
    watch_poll_seconds: Annotated[float, Field(gt=0, le=60)] = 1.0
    reflection: bool | None = None
    drain_seconds: Annotated[float, Field(ge=0)] = 30.0

    @property
    def issuers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.issuer.split()))

    @property
    def processor_name(self) -> str:
        return self.processor or "sandbox"

    @property
    def fingerprint_secrets(self) -> tuple[Secret, ...]:
        """Keys of the fingerprints of requests, the current one first; only production needs one that nobody knows."""
        given = [key for key in (self.fingerprint_key, self.fingerprint_key_previous) if key]
        return tuple(Secret(key.get_secret_value()) for key in given) or (Secret("development"),)

    @property
    def sealing_keys(self) -> tuple[Secret, ...]:
        """Keys of the secrets of webhooks, the current one first; only production needs one that nobody knows."""
        keys = self.webhook_secret_keys
        return tuple(map(Secret, (_DEVELOPMENT_SEALING_KEY if keys is None else keys.get_secret_value()).split()))

    @property
    def webhook_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Open besides the internet, to the webhooks of whom `webhook_networks_allowed_to` says."""
        return tuple(map(ip_network, self.webhook_networks_allowed.split()))

    @property
    def webhook_port_numbers(self) -> frozenset[int] | None:
        """None for any."""
        return None if self.webhook_ports == "any" else frozenset(map(int, self.webhook_ports.split()))

    @property
    def serves_reflection(self) -> bool:
        """Outside production unless it is said."""
        return self.env is Environment.DEVELOPMENT if self.reflection is None else self.reflection

    @classmethod
    def from_env(cls) -> Self:
        """Raises SettingsFault, also for names that no setting has."""
        known = {PREFIX + name.upper() for name in cls.model_fields}
        unknown = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
        faults = [f"{name}: there is no such setting" for name in unknown]
        try:
            settings = cls()  # type: ignore[call-arg]  # the required ones come from the environment
            if settings.env is Environment.PRODUCTION:
                faults += [f"{name}: is not for production" for name in _TELL_ALL if os.environ.get(name)]
        except ValidationError as error:
            faults += [_line(dict(fault)) for fault in error.errors(include_input=False, include_url=False)]
        if faults:
            raise SettingsFault("\n".join(faults))
        return settings

    @model_validator(mode="after")
    def _refuse_what_does_not_fit(self) -> Self:
        faults = self._faults_of_issuers()
        if self.env is Environment.PRODUCTION:
            faults += self._faults_in_production()
        try:
            _ = self.webhook_networks
        except ValueError:
            faults.append("PAYORDER_WEBHOOK_NETWORKS_ALLOWED: must be networks in CIDR notation")
        if not self.sealing_keys or not all(map(_is_sealing_key, self.sealing_keys)):
            faults.append("PAYORDER_WEBHOOK_SECRET_KEYS: each must be 32 bytes in URL-safe base64")
        if self.reconcile_after_seconds <= self.charge_timeout_seconds:
            faults.append("PAYORDER_RECONCILE_AFTER_SECONDS: must be longer than PAYORDER_CHARGE_TIMEOUT_SECONDS")
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _faults_of_issuers(self) -> list[str]:
        """Without a key set of its own an issuer is asked for it, and so it must be an URL."""
        if self.jwks is not None:
            several = len(self.issuers) > 1
            return ["PAYORDER_JWKS: is the key set of one issuer, and there are several"] if several else []
        schemes = ("https",) if self.env is Environment.PRODUCTION else ("https", "http")
        if all(_is_plain_url(issuer, schemes) for issuer in self.issuers):
            return []
        return [f"PAYORDER_ISSUER: must be {' or '.join(schemes)} URLs, unless PAYORDER_JWKS is given"]

    def _faults_in_production(self) -> list[str]:
        faults = self._faults_of_addresses()
        if self.processor is None:
            faults.append("PAYORDER_PROCESSOR: must be named in production")
        if self.reflection:
            faults.append("PAYORDER_REFLECTION: is not for production")
        if self.log_level == "DEBUG":
            faults.append("PAYORDER_LOG_LEVEL: DEBUG is not for production")
        if len(self.fingerprint_secrets[0].reveal()) < FINGERPRINT_KEY_LENGTH_MIN:
            faults.append("PAYORDER_FINGERPRINT_KEY: must have at least 32 characters in production")
        if self.webhook_ports == "any":
            faults.append("PAYORDER_WEBHOOK_PORTS: must be numbers in production")
        if self.webhook_secret_keys is None:
            faults.append("PAYORDER_WEBHOOK_SECRET_KEYS: must be given in production")
        return faults

    def _faults_of_addresses(self) -> list[str]:
        faults = []
        if self.jwks is not None and any(map(_is_for_development, self.issuers)):
            faults.append("PAYORDER_ISSUER: the development issuer, or one without https, is not trusted in production")
        if self.jwks and self.jwks.startswith("http://") and urlsplit(self.jwks).hostname not in _LOOPBACK:
            faults.append("PAYORDER_JWKS: must be https, a file, or on this machine in production")
        if not (self.listen_plaintext or _is_on_this_machine(self.listen)):
            faults.append("PAYORDER_LISTEN: has no TLS, so another machine needs PAYORDER_LISTEN_PLAINTEXT")
        if not _is_plain_url(self.public_url, ("https",)):
            faults.append("PAYORDER_PUBLIC_URL: must be an https URL in production, without a user")
        return faults


def _is_on_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    return address.startswith("unix:") or host in _LOOPBACK


def _is_sealing_key(key: Secret) -> bool:
    try:
        return len(base64.urlsafe_b64decode(key.reveal())) == SEALING_KEY_BYTES
    except (ValueError, binascii.Error):
        return False


def _is_for_development(issuer: str) -> bool:
    """That of `./dev up` has an address without TLS; with a key set in a file it has none."""
    return issuer == DEVELOPMENT_ISSUER or issuer.lower().startswith("http:")


def _is_plain_url(text: str, schemes: tuple[str, ...]) -> bool:
    """An issuer identifier has neither query nor fragment (OpenID Connect Core 1.0, section 2); ours no password.

    Nor has what the paths of receipts are put behind.
    """
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError:
        return False
    return url.scheme in schemes and bool(url.hostname) and not ("@" in url.netloc or "?" in text or "#" in text)


def _line(fault: Mapping[str, object]) -> str:
    location, text = fault["loc"], str(fault["msg"]).removeprefix("Value error, ")
    if isinstance(location, tuple) and location:
        return f"{PREFIX}{str(location[0]).upper()}: {text}"
    return text
