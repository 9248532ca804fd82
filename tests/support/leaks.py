"""Card data that was sent during the run, and a search for it in everything that stays behind.

The doors write down every `source.number` and `cvc` they send and every answer they get. Numbers are looked for by
their runs of eight digits or more, of an IBAN too: as they are, in groups, percent-encoded, in hexadecimal, in UTF-16
and in base64. A CVC is too short for that: it is looked for beside its name, in its protobuf place, and as a whole
value.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

# The shortest run that is looked for by itself; the patterns below say the same.
DIGITS_MIN = 8
PAN_DIGITS_MIN = 13


_OF_COMPUTERS = {str(2**bits - less) for bits in (31, 32, 63, 64) for less in (0, 1)}


def _is_telling(digits: str) -> bool:
    """Not what stands in the files of any database: limits of integers, 400000000, zeros."""
    return len(set(digits)) > (1 if len(digits) >= PAN_DIGITS_MIN else 2) and digits not in _OF_COMPUTERS


@dataclass(slots=True)
class Ledger:
    """What was sent and what came back; `folders` are those of every stack and database that was started."""

    numbers: set[str] = field(default_factory=set)
    cvcs: set[str] = field(default_factory=set)
    answers: list[bytes] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def sent(self, body: Any) -> None:
        """A request as JSON values, or as the bytes of a body, which need not be JSON."""
        if isinstance(body, bytes):
            body = _parsed(body)
        for source in _sources(body):
            number = re.sub("[ -]", "", str(source.get("number", "")))
            runs = re.findall(f"[0-9]{{{DIGITS_MIN},}}", number, re.ASCII)
            self.numbers |= {run for run in runs if _is_telling(run)}
            self.cvcs |= set(re.findall("^[0-9]{3,4}$", str(source.get("cvc", "")), re.ASCII))

    def received(self, *parts: bytes) -> None:
        self.answers.extend(parts)


# One for the whole run: the search at its end has to know everything.
LEDGER = Ledger()


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        numbers = re.findall(r'"number"\s*:\s*"?([^",}]*)', text)
        cvcs = re.findall(r'"cvc"\s*:\s*"?([^",}]*)', text)
        return {"source": [{"number": each} for each in numbers] + [{"cvc": each} for each in cvcs]}


def _sources(body: Any) -> Iterator[dict[str, Any]]:
    if isinstance(body, dict):
        for name, value in body.items():
            if name == "source":
                yield from (each for each in (value if isinstance(value, list) else [value]) if isinstance(each, dict))
            elif name == "payment":
                yield from _sources(value)


# Eight digits or more in groups of two or more, the last of one or more: databases are full of "4 0 0 0 0 0 0 0".
_RUN = re.compile(
    rb"[0-9](?=(?:(?:[ +._-]|%20|%2[Dd])?[0-9]){7})[0-9]+"
    rb"(?:(?:[ +._-]|%20|%2[Dd])[0-9]{2,})*(?:(?:[ +._-]|%20|%2[Dd])[0-9])?"
)
_SEPARATORS = re.compile(rb"[ +._-]|%20|%2[Dd]")
_UTF16 = re.compile(rb"[0-9](?:\0[0-9]){7,}")
_PERCENT = re.compile(rb"%3[0-9](?:%3[0-9]){7,}")
# Three ASCII digits are always one of these four characters; found at every place where a group may begin.
_TRIPLET = rb"[DTjz][AEIMQUYcgk][w-z0-5]"
_BASE64 = re.compile(rb"[MNO](?=(%b(?:[MNO]%b)+))" % (_TRIPLET, _TRIPLET))

_CVC_BESIDE_ITS_NAME = re.compile(rb"cvc[^0-9a-z]{0,16}[0-9]{3,4}(?![0-9])", re.IGNORECASE)
# Of keys, signatures and what is sealed: in so many random letters anything stands in the end.
_PEM = re.compile(rb"-----BEGIN [A-Z ]+-----[A-Za-z0-9+/=\s]+-----END [A-Z ]+-----")
_WORD = re.compile(rb"[A-Za-z0-9+/_-]+")
_RANDOM_LENGTH_MIN = 32
# PaymentSource: cvc = 4, then exp_month = 5 and exp_year = 6, which no card is without.
_CVC_IN_PROTOBUF = re.compile(rb"\x22(?:\x03[0-9]{3}|\x04[0-9]{4})\x28[\x01-\x0c]\x30")


# Of a webhook endpoint: shown to its owner, and kept sealed.
_WEBHOOK_SECRET = re.compile(rb"whsec_[A-Za-z0-9+/]{43}=")


class Search:
    """A search for the given numbers and CVCs. What it finds is told by kind, not by value."""

    def __init__(self, numbers: Iterable[str], cvcs: Iterable[str]) -> None:
        digits = [number.encode() for number in numbers]
        self._whole = {number for number in digits if len(number) < PAN_DIGITS_MIN}
        self._pans = _by_length(number for number in digits if len(number) >= PAN_DIGITS_MIN)
        self._hex = _by_length(number.hex().encode() for number in digits)
        self._cores = _by_length(
            number[skipped : skipped + (len(number) - skipped) // 3 * 3] for number in digits for skipped in range(3)
        )
        self._cvcs = frozenset(cvcs)
        self._clean: set[bytes] = set()

    def in_file(self, data: bytes) -> set[str]:
        """`in_bytes` and secrets of webhooks, but once: databases of a server are copies of a few hundred files."""
        digest = blake2b(data).digest()
        if digest in self._clean:
            return set()
        found = self.in_bytes(data)
        if _WEBHOOK_SECRET.search(data):
            found.add("webhook secret")
        if not found:
            self._clean.add(digest)
        return found

    def in_bytes(self, data: bytes) -> set[str]:
        """The kinds of what stands in `data`, which may be text or binary."""
        found = set()
        for match in _RUN.finditer(data):
            found |= self._in_run(match[0])
        for kind, pattern, mark in (("utf-16", _UTF16, b"\0"), ("percent", _PERCENT, b"%3")):
            for match in pattern.finditer(data):
                if self._is_number(match[0].replace(mark, b"")):
                    found.add(kind)
        for match in _BASE64.finditer(data):
            if _any_window(_from_base64(match[0] + match[1]), self._cores):
                found.add("base64")
        if _has_cvc_beside_its_name(_PEM.sub(b"", data)) or _CVC_IN_PROTOBUF.search(data):
            found.add("cvc")
        return found

    def in_values(self, values: Iterable[Any]) -> set[str]:
        """Of whole values, those of JSON texts included: "cvc" if one is a CVC."""
        return {"cvc"} if any(text in self._cvcs for value in values for text in _strings(value)) else set()

    def in_json_lines(self, data: bytes) -> set[str]:
        return self.in_values(line.decode("utf-8", "replace") for line in data.splitlines())

    def _in_run(self, run: bytes) -> set[str]:
        joined = _SEPARATORS.sub(b"", run)
        kinds = set()
        if self._is_number(run) or any(piece in self._whole for piece in _SEPARATORS.split(run)):
            kinds.add("plain")
        # "36.227206" may be seconds as well as an account number of eight digits; no time has the digits of a card.
        elif _any_window(joined, self._pans) or (joined in self._whole and b"." not in run):
            kinds.add("grouped")
        if _any_window(joined, self._hex):
            kinds.add("hexadecimal")
        return kinds

    def _is_number(self, digits: bytes) -> bool:
        return digits in self._whole or _any_window(digits, self._pans)


def _has_cvc_beside_its_name(data: bytes) -> bool:
    return any(not _is_among_random_letters(match, data) for match in _CVC_BESIDE_ITS_NAME.finditer(data))


def _is_among_random_letters(match: re.Match[bytes], data: bytes) -> bool:
    """In the midst of a long word of base64, with capitals, small letters and digits around it, and hardly a separator.

    In base64url one letter in 32 is one; more of them join names.
    """
    start, end = max(0, match.start() - _RANDOM_LENGTH_MIN), match.end() + _RANDOM_LENGTH_MIN
    word = next(word for word in _WORD.finditer(data, start, end) if word.end() > match.start())
    around = data[word.start() : match.start()] + data[match.end() : word.end()]
    is_long = match.end() <= word.end() and len(word[0]) >= _RANDOM_LENGTH_MIN
    is_joined = len(re.findall(rb"[_-]", word[0])) * 10 > len(word[0])
    return is_long and not is_joined and all(re.search(kind, around) for kind in (rb"[A-Z]", rb"[a-z]", rb"[0-9]"))


def _by_length(needles: Iterable[bytes]) -> dict[int, set[bytes]]:
    lengths: dict[int, set[bytes]] = {}
    for needle in needles:
        lengths.setdefault(len(needle), set()).add(needle)
    return lengths


def _any_window(digits: bytes, needles: dict[int, set[bytes]]) -> bool:
    return any(
        digits[start : start + length] in wanted
        for length, wanted in needles.items()
        for start in range(len(digits) - length + 1)
    )


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _from_base64(text: bytes) -> bytes:
    digits = bytearray()
    for start in range(0, len(text) - 3, 4):
        bits = 0
        for character in text[start : start + 4]:
            bits = bits << 6 | _ALPHABET.index(character)
        digits += bits.to_bytes(3, "big")
    return bytes(digits)


def _strings(value: Any) -> Iterator[str]:
    """Every text in a value; a text that is a JSON document is opened."""
    if isinstance(value, str):
        yield value
        if value[:1] in ("{", "["):
            try:
                yield from _strings(json.loads(value))
            except ValueError:
                return
    elif isinstance(value, dict):
        yield from (text for each in value.items() for part in each for text in _strings(part))
    elif isinstance(value, list):
        yield from (text for each in value for text in _strings(each))


def files_below(folder: Path) -> Iterator[Path]:
    """Every file that holds something; not the sockets, and not what ends while one looks."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def leaks_below(folder: Path, search: Search) -> dict[str, set[str]]:
    """Path -> kinds, for every file in which something was found."""
    found = {}
    for path in files_below(folder):
        try:
            data = path.read_bytes().rstrip(b"\0")
        except FileNotFoundError:
            continue  # A journal that its database has just removed.
        kinds = search.in_file(data)
        if path.suffix == ".log":
            kinds |= search.in_json_lines(data)
        if kinds:
            found[str(path.relative_to(folder))] = kinds
    return found
