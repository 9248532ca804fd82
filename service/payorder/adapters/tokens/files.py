"""Files that an operator may change while the service runs."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from jwt import PyJWK

from payorder.adapters.tokens.keys import Keys, NoKeySet, keys_of

Content = TypeVar("Content")


class ReadAgain(Generic[Content]):
    """What a file says, read again when it has changed. One that cannot be read leaves it as it was.

    `parse` raises NoKeySet or ValueError. Raises those and OSError if the file cannot be read at the start.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], Content]) -> None:
        self._path = path
        self._parse = parse
        self._version = self._version_now()
        self._content = parse(path.read_bytes())

    def content(self) -> Content:
        with suppress(OSError, NoKeySet, ValueError):
            version = self._version_now()
            if version != self._version:
                self._content = self._parse(self._path.read_bytes())
                self._version = version
        return self._content

    def _version_now(self) -> tuple[int, int, int]:
        found = self._path.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


class FileKeySet:
    """A JWKS file. Raises OSError or NoKeySet if it cannot be read at the start."""

    def __init__(self, path: Path) -> None:
        self._keys = ReadAgain(path, _keys_in)

    async def find(self, key_id: str, algorithm: str) -> PyJWK:
        # Looked at for known keys too: a key that was taken out must be refused at once.
        return self._keys.content()[key_id, algorithm]

    async def close(self) -> None:
        pass


def _keys_in(data: bytes) -> Keys:
    try:
        return keys_of(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise NoKeySet("not JSON") from error


class DisabledSubjects:
    """A file with one subject a line. Raises OSError or ValueError (not UTF-8) if it cannot be read at the start."""

    def __init__(self, path: Path) -> None:
        self._subjects = ReadAgain(path, lambda data: frozenset(map(str.strip, data.decode().splitlines())))

    def __contains__(self, subject: object) -> bool:
        return subject in self._subjects.content()
