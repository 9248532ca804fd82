"""The `payorder-local` command behind `./dev up`, `./dev token` and `./dev rotate`."""

import asyncio
import sys
from pathlib import Path

import click

from payorder.local.welcome import DATA_DEFAULT, ISSUER_PORT

_data = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=DATA_DEFAULT,
    show_default=True,
    help="Folder of the database, the development key and the logs.",
)  # fmt: skip - one option


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run payorder on this machine, for development."""


@main.command()
@click.option("--port", default=8080, show_default=True, help="Envoy: REST and gRPC.")
@click.option("--grpc-port", default=50051, show_default=True, help="The service itself: gRPC.")
@click.option("--issuer-port", default=ISSUER_PORT, show_default=True, help="The development issuer: OAuth 2.0.")
@_data
@click.option(
    "--database-url", help="sqlite:///PATH or postgresql://USER@HOST/NAME; default: SQLite in the data folder."
)
@click.option("--postgres", is_flag=True, help="Start an embedded PostgreSQL in the data folder.")
def up(port: int, grpc_port: int, issuer_port: int, data: Path, database_url: str | None, postgres: bool) -> None:
    """Start database, issuer, service and Envoy, and stop them all on Ctrl-C."""
    from payorder.local import up as local  # noqa: PLC0415 - a token needs none of it
    from payorder.local.supervisor import ProcessFault  # noqa: PLC0415 - as above

    if postgres and database_url:
        raise click.UsageError("--postgres and --database-url exclude each other")
    wanted = local.Up(port, grpc_port, data, database_url, with_postgres=postgres, issuer_port=issuer_port)
    try:
        asyncio.run(local.up(wanted))
    except (local.CannotStart, ProcessFault) as fault:
        sys.exit(f"payorder: {fault}")


@main.command()
@click.option("--sub", required=True, help="Whom the token stands for: the owner of orders.")
@click.option("--scope", default="read:orders write:orders", show_default=True, help="Scopes, separated by spaces.")
@_data
def token(sub: str, scope: str, data: Path) -> None:
    """Print an access token of the development issuer."""
    from payorder.local.issuer import Issuer, url_at  # noqa: PLC0415 - as above

    folder = data / "issuer"
    # Before the first `./dev up` its folder does not know where it will be.
    issuer = Issuer(folder) if (folder / "url").exists() else Issuer(folder, url_at(ISSUER_PORT))
    click.echo(issuer.token(subject=sub, scope=scope))


@main.command()
@_data
def rotate(data: Path) -> None:
    """Have the development issuer sign with its next key; tokens of the one before stay valid."""
    from payorder.local.issuer import Issuer  # noqa: PLC0415 - as above

    Issuer(data / "issuer").rotate()


@main.command()
@click.option("--port", default=ISSUER_PORT, show_default=True)
@_data
def issuer(port: int, data: Path) -> None:
    """Serve the development issuer alone, as `up` does beside the others."""
    from payorder.local.issuer import server  # noqa: PLC0415 - as above

    try:
        server.serve(data / "issuer", port)
    except OSError as fault:
        sys.exit(f"payorder: {fault}")
