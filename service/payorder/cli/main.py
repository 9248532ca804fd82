"""The `payorder` command: thin subcommands, which import what they need when they run."""

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
def migrate() -> None:
    """Bring the database schema up to date."""
    from payorder.cli import migrate as migration  # noqa: PLC0415 - as above

    migration.migrate()
