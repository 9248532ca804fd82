"""The `payorder` command: thin subcommands, which import what they need when they run."""

from pathlib import Path

import click

_WORKERS_MAX = 64


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="payorder")
def main() -> None:
    """Take the payment for an existing order, once and only once."""


@main.command()
@click.option(
    "--workers",
    type=click.IntRange(1, _WORKERS_MAX),
    default=1,
    show_default=True,
    help="How many processes share the port (Linux).",
)
def serve(workers: int) -> None:
    """Serve gRPC until SIGTERM or Ctrl-C, then finish what is running."""
    from payorder.cli import serve as serving  # noqa: PLC0415 - help is answered at once

    serving.serve(workers)


@main.command(hidden=True)
@click.argument("words", type=int, nargs=4)
def worker(words: tuple[int, int, int, int]) -> None:
    """One process of `serve --workers`, which alone can start it."""
    from payorder.cli import serve as serving  # noqa: PLC0415 - as above

    serving.serve_as_worker(words)


@main.command()
@click.option(
    "--application-role",
    metavar="NAME",
    help="PostgreSQL: the role that serves; it gets what that needs, and cannot change the audit log.",
)
def migrate(application_role: str | None) -> None:
    """Bring the database schema up to date."""
    from payorder.cli import migrate as migration  # noqa: PLC0415 - as above

    migration.migrate(application_role)


@main.command()
@click.option(
    "--address", metavar="HOST:PORT", default="127.0.0.1:50051", show_default=True, help="Where gRPC is served."
)
@click.option("--tls", is_flag=True, help="Speak TLS there, with whom the system trusts.")
@click.option(
    "--ca-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Whom to trust instead, as PEM; with TLS in any case.",
)
@click.option("--token-in-clear", is_flag=True, help="Send the token to another machine without TLS.")
@click.option("--token", envvar="TOKEN", show_envvar=True, help="An access token with the scope webhooks.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Where the token is read from instead, before every call.",
)
@click.option("--events", metavar="TYPES", help="Types of events with commas between them; by default all.")
@click.option("--forward-to", metavar="URL", help="Who is sent every event that is verified, and answers it.")
@click.option("--print-json", is_flag=True, help="Print the body of every event, and nothing else, as for jq.")
def listen(
    *,
    address: str,
    tls: bool,
    ca_file: Path | None,
    token_in_clear: bool,
    token: str | None,
    token_file: Path | None,
    events: str | None,
    forward_to: str | None,
    print_json: bool,
) -> None:
    """Print the events of one's orders as they are delivered: a webhook receiver for development."""
    from payorder.cli import listen as listening  # noqa: PLC0415 - as above
    from payorder.domain.secret import Secret  # noqa: PLC0415 - as above

    if token is None and token_file is None:
        raise click.UsageError("a token is needed: TOKEN in the environment, --token or --token-file")
    tls = tls or ca_file is not None
    if not (tls or token_in_clear or listening.is_this_machine(address)):
        raise click.UsageError(f"{address} is another machine: --tls hides the token, --token-in-clear does not")
    listening.listen(
        listening.Wanted(
            address=address,
            tls=tls,
            ca_file=ca_file,
            token=Secret(token or ""),
            token_file=token_file,
            event_types=events.split(",") if events else (),
            forward_to=forward_to,
            prints_json=print_json,
        )
    )


@main.group()
def audit() -> None:
    """The audit log."""


@audit.command()
@click.option(
    "--public-key",
    "public_keys",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A key that has signed seals, as PEM; by default the one that the service signs with.",
)
@click.option(
    "--seal",
    "seals",
    metavar="NUMBER:HASH",
    multiple=True,
    help="A seal that must be there: number and digest of a line `audit log sealed` that was kept elsewhere.",
)
def verify(public_keys: tuple[Path, ...], seals: tuple[str, ...]) -> None:
    """Say what was changed, added or taken out by others than the service; the status is then 1."""
    from payorder.cli import audit as auditing  # noqa: PLC0415 - as above

    auditing.verify(public_keys, seals)


@main.group()
def receipt() -> None:
    """Receipts of paid orders."""


@receipt.command("verify")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--keys",
    "key_set",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The published keys: what GET /.well-known/receipt-keys answered, once.",
)
def verify_receipt(file: Path, key_set: Path) -> None:
    """Say whether FILE, the JSON of a receipt or its signature alone, is as it was signed; the status is 1 if not."""
    from payorder.cli import receipt as receipts  # noqa: PLC0415 - as above

    receipts.verify(file, key_set)
