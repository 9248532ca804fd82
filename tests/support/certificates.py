"""Real certificates, made for a test: an authority, and what it vouches for."""

import datetime
import hashlib
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from support.issuers import Key, encoded, new_key


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM files; `thumbprint` is SHA-256 in base64url, as tokens name a certificate (RFC 8705)."""

    chain: Path
    key: Path
    thumbprint: str

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context


class Authority:
    """Vouches for any name, on this machine. Its own certificate is in the file `path`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key, self._name = new_key("ES256"), _name("authority")
        self.path = folder / "authority.pem"
        certificate = self._signed(self._name, self._key, is_authority=True)
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def certificate(
        self, name: str, *, dns_names: Sequence[str] = (), begins_in_hours: int = -1, ends_in_hours: int = 1
    ) -> Certificate:
        key = new_key("ES256")
        hours = (begins_in_hours, ends_in_hours)
        certificate = self._signed(_name(name), key, is_authority=False, dns_names=dns_names, hours=hours)
        return self._written(name, certificate, key)

    def self_signed(self, *, dns_names: Sequence[str]) -> Certificate:
        """It vouches for itself, and for nobody else."""
        certificate = self._signed(self._name, self._key, is_authority=False, dns_names=dns_names)
        return self._written("self-signed", certificate, self._key)

    def _written(self, name: str, certificate: x509.Certificate, key: Key) -> Certificate:
        chain, key_path = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()
        return Certificate(chain, key_path, encoded(digest))

    def _signed(
        self,
        name: x509.Name,
        key: Key,
        *,
        is_authority: bool,
        dns_names: Sequence[str] = (),
        hours: tuple[int, int] = (-1, 1),
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        begin, end = (now + datetime.timedelta(hours=number) for number in hours)
        hosts = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, dns_names)]
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
