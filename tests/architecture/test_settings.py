"""Settings: every fault at once, by name, and no value of any of them; and processors, which settings name."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from payorder.config import DEVELOPMENT_ISSUER, PREFIX, Settings
from payorder.local.issuer import Issuer
from support.service import install_processor
from support.signing_keys import new_signing_key
from support.stack import environment_without_payorder

SHOW = "import os; from payorder.config import Settings; print(repr(Settings.from_env()))"

GOOD = {
    "ISSUER": "https://issuer.example",
    "PROCESSOR": "sandbox",
    "FINGERPRINT_KEY": "f" * 32,
    "WEBHOOK_SECRET_KEYS": "k" * 43 + "=",
    "PUBLIC_URL": "https://pay.example",
}


def run(
    settings: dict[str, str], *arguments: str, python_path: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Another Python with only these settings, and `text` to read."""
    environment = environment_without_payorder() | {PREFIX + name: value for name, value in settings.items()}
    if python_path is not None:
        environment["PYTHONPATH"] = str(python_path)
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        input=text,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def serve(settings: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return run(settings, "-m", "payorder", "serve")


def test_production_is_the_default_and_needs_little() -> None:
    assert 0 == run(GOOD, "-c", SHOW).returncode


def test_every_fault_is_told_at_once_by_the_name_of_its_setting() -> None:
    wrong = {
        "ENV": "leak",
        "LOG_LEVEL": "leak",
        "DATABASE_POOL_SIZE": "leak",
        "DATABASE_POOL_TIMEOUT_SECONDS": "0",
        "TOKEN_LIFETIME_SECONDS_MAX": "-5",
        "PROCESSOR_OPTIONS": "{}",
        "CHARGE_TIMEOUT_SECONDS": "nan",
        "ANSWER_WITHIN_SECONDS": "61",
        "REQUEST_BYTES_MAX": "1",
        "CALLS_MAX": "0",
        "REFLECTION": "leak",
        "DRAIN_SECONDS": "-1",
        "TOKEN_TYPES": "leak",
        "FORWARDED_CLIENT_CERT": "leak",
        "DATABASE_URI": "leak",
        "PASSWORD": "leak",
    }
    ended = serve(wrong)
    told = {line.partition(":")[0].removeprefix(PREFIX) for line in ended.stderr.splitlines()[1:]}
    assert {*wrong, "ISSUER"} - {"PROCESSOR_OPTIONS"} == told
    assert (1, "", False) == (ended.returncode, ended.stdout, "leak" in ended.stderr)


# Each alone makes good settings bad; `leak` is what must not be told.
BAD: list[tuple[dict[str, str | None], str]] = [
    ({"ISSUER": DEVELOPMENT_ISSUER}, "ISSUER"),
    ({"ISSUER": DEVELOPMENT_ISSUER, "JWKS": "https://issuer.example/jwks"}, "ISSUER"),
    ({"ISSUER": "http://127.0.0.1:8082", "JWKS": "http://127.0.0.1:8082/jwks"}, "ISSUER"),
    ({"ISSUER": "HTTP://issuer.example/leak", "JWKS": "https://issuer.example/jwks"}, "ISSUER"),
    ({"ISSUER": " "}, "ISSUER"),
    ({"ISSUER": "http://leak.example"}, "ISSUER"),
    ({"ISSUER": "http://127.0.0.1:8080"}, "ISSUER"),
    ({"ISSUER": "https://issuer.example http://leak.example"}, "ISSUER"),
    ({"ISSUER": "https://user:leak@issuer.example"}, "ISSUER"),
    ({"ISSUER": "https://:leak@issuer.example"}, "ISSUER"),
    ({"ISSUER": "https://issuer.example:leak"}, "ISSUER"),
    ({"ISSUER": "https://issuer.example?leak"}, "ISSUER"),
    ({"ISSUER": "https://issuer.example#leak"}, "ISSUER"),
    ({"ISSUER": "https://[leak"}, "ISSUER"),
    ({"ISSUER": "leak.example"}, "ISSUER"),
    ({"ISSUER": "https://issuer.example https://another.example", "JWKS": "https://issuer.example/leak"}, "JWKS"),
    ({"TOKEN_TYPES": "leak"}, "TOKEN_TYPES"),
    ({"PROCESSOR": None}, "PROCESSOR"),
    ({"LISTEN": "0.0.0.0:50051"}, "LISTEN"),
    ({"LISTEN": "[::]:50051"}, "LISTEN"),
    ({"REFLECTION": "true"}, "REFLECTION"),
    ({"LOG_LEVEL": "DEBUG"}, "LOG_LEVEL"),
    ({"FINGERPRINT_KEY": None}, "FINGERPRINT_KEY"),
    ({"FINGERPRINT_KEY": "leak"}, "FINGERPRINT_KEY"),
    ({"FINGERPRINT_KEY": "leak" * 7}, "FINGERPRINT_KEY"),
    ({"WEBHOOK_SECRET_KEYS": None}, "WEBHOOK_SECRET_KEYS"),
    ({"WEBHOOK_SECRET_KEYS": ""}, "WEBHOOK_SECRET_KEYS"),
    ({"WEBHOOK_SECRET_KEYS": "leak"}, "WEBHOOK_SECRET_KEYS"),
    ({"WEBHOOK_SECRET_KEYS": "k" * 43 + "= leak"}, "WEBHOOK_SECRET_KEYS"),
    ({"WEBHOOK_NETWORKS_ALLOWED": "10.0.0.0/8 leak"}, "WEBHOOK_NETWORKS_ALLOWED"),
    ({"WEBHOOK_NETWORKS_ALLOWED": "10.0.0.1/8"}, "WEBHOOK_NETWORKS_ALLOWED"),
    ({"WEBHOOK_NETWORKS_ALLOWED_TO": "leak"}, "WEBHOOK_NETWORKS_ALLOWED_TO"),
    ({"WEBHOOK_PORTS": "any"}, "WEBHOOK_PORTS"),
    ({"WEBHOOK_PORTS": "leak"}, "WEBHOOK_PORTS"),
    ({"RECONCILE_AFTER_SECONDS": "20"}, "RECONCILE_AFTER_SECONDS"),
    ({"ISSUER": None}, "ISSUER"),
    ({"PROCESSOR_OPTIONS": "leak"}, "PROCESSOR_OPTIONS"),
    ({"PROCESSOR_OPTIONS": '["leak"]'}, "PROCESSOR_OPTIONS"),
    ({"PROCESSOR_OPTIONS": '{"a": {"leak": 1}}'}, "PROCESSOR_OPTIONS"),
    ({"DATABASE_URL": "mysql://root:leak@localhost/x"}, "DATABASE_URL"),
    ({"DATABASE_URL": "leak"}, "DATABASE_URL"),
    ({"DATABASE_URL": ""}, "DATABASE_URL"),
    ({"JWKS": "http://issuer.example/jwks.json"}, "JWKS"),
    ({"SELLER": "Pets | leak\nLondon"}, "SELLER"),
    ({"SELLER": "Pets\x1b[31m | leak"}, "SELLER"),
    ({"SELLER": "Pets \N{RIGHT-TO-LEFT OVERRIDE}leak"}, "SELLER"),
    ({"SELLER": "Pets || leak"}, "SELLER"),
    ({"SELLER": "leak|" * 6 + "leak"}, "SELLER"),
    ({"SELLER": "leak" * 20 + "!"}, "SELLER"),
    ({"PUBLIC_URL": None}, "PUBLIC_URL"),
    ({"PUBLIC_URL": ""}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "http://leak.example"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https://user:leak@pay.example"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https://:leak@pay.example"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https://pay.example:leak"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https://pay.example#leak"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https:///leak"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "leak.example"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https://leak.example/"}, "PUBLIC_URL"),
    ({"PUBLIC_URL": "https://leak.example?a"}, "PUBLIC_URL"),
]

READ_EACH = """
import json, os, sys
from payorder.config import Settings, SettingsFault
told = []
for settings in json.load(sys.stdin):
    os.environ |= settings
    try:
        Settings.from_env()
    except SettingsFault as fault:
        told.append(str(fault))
    else:
        told.append("")
    for name in settings:
        del os.environ[name]
json.dump(told, sys.stdout)
"""


def test_production_refuses_every_bad_setting_in_one_line_that_names_it() -> None:
    settings = [
        {PREFIX + key: value for key, value in (GOOD | changes).items() if value is not None} for changes, _ in BAD
    ]
    told = json.loads(run({}, "-c", READ_EACH, text=json.dumps(settings)).stdout)
    assert [PREFIX + name for _, name in BAD] == [text.partition(":")[0] for text in told]
    assert [] == [text for text in told if "leak" in text or "\n" in text]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"JWKS": "/nowhere/leak/jwks.json"}, "payorder: PAYORDER_JWKS: cannot be read as a key set (RFC 7517)"),
        ({"JWKS": "/proc/self/status"}, "payorder: PAYORDER_JWKS: cannot be read as a key set (RFC 7517)"),
        (
            {"DISABLED_SUBJECTS": "/nowhere/leak"},
            "payorder: PAYORDER_DISABLED_SUBJECTS: cannot be read as lines of UTF-8",
        ),
        ({"LISTEN": "host.invalid:1", "ENV": "development"}, "payorder: cannot listen on host.invalid:1"),
        ({}, "payorder: PAYORDER_AUDIT_SIGNING_KEY: must be given in production"),
        (
            {"AUDIT_SIGNING_KEY": "/proc/self/status"},
            "payorder: PAYORDER_AUDIT_SIGNING_KEY: cannot be read as an Ed25519 private key in PEM",
        ),
        ({"RECEIPT_SIGNING_KEY": None}, "payorder: PAYORDER_RECEIPT_SIGNING_KEY: must be given in production"),
        (
            {"RECEIPT_SIGNING_KEY": "/proc/self/status"},
            "payorder: PAYORDER_RECEIPT_SIGNING_KEY: cannot be read as an Ed25519 private key in PEM",
        ),
        (
            {"RECEIPT_KEYS_PREVIOUS": "/proc/self/status"},
            "payorder: PAYORDER_RECEIPT_KEYS_PREVIOUS: cannot be read as a key set (RFC 7517)",
        ),
        (
            {"DATABASE_URL": "postgresql://postgres@127.0.0.1:1/payorder"},
            "payorder: PAYORDER_DATABASE_URL: the database does not answer, so its role is not known",
        ),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(changes: dict[str, str | None], expected: str, tmp_path: Path) -> None:
    key = str(new_signing_key(tmp_path / "key.pem"))
    settings = GOOD | {"DATABASE_URL": "sqlite:////nowhere/payorder.db", "RECEIPT_SIGNING_KEY": key} | changes
    ended = serve({name: value for name, value in settings.items() if value is not None})
    assert (1, expected) == (ended.returncode, ended.stderr.strip().rpartition("\n")[2])
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("url", ["sqlite:////nowhere/payorder.db", "postgresql://postgres@127.0.0.1:1/payorder"])
def test_a_database_that_is_away_is_told_in_one_line(url: str) -> None:
    ended = run(GOOD | {"DATABASE_URL": url}, "-m", "payorder", "migrate")
    # One line among others, because aiosqlite's thread may complain on its own when the process ends so soon.
    assert 1 == ended.returncode
    assert "payorder: the database cannot be reached" in ended.stderr


def test_development_needs_neither_processor_nor_key(tmp_path: Path) -> None:
    jwks = Issuer(tmp_path).jwks_path
    shown = run({"ENV": "development", "ISSUER": DEVELOPMENT_ISSUER, "JWKS": str(jwks)}, "-c", SHOW)
    assert 0 == shown.returncode


def test_receipts_may_be_read_below_a_path() -> None:
    show = "from payorder.config import Settings; print(Settings.from_env().public_url)"
    shown = run(GOOD | {"PUBLIC_URL": "https://shop.example:8443/pay"}, "-c", show)
    assert "https://shop.example:8443/pay" == shown.stdout.strip()


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("Pets & Co | 1 High Street|London", "Pets & Co\n1 High Street\nLondon"),
        ("a" * 80 + " | b | c | d | e | f", "a" * 80 + "\nb\nc\nd\ne\nf"),
        ("  ", None),
        (None, None),
    ],
)
def test_a_seller_has_a_few_lines_with_bars_between_them(told: str | None, expected: str | None) -> None:
    show = "import json; from payorder.config import Settings; print(json.dumps(Settings.from_env().seller))"
    shown = run(GOOD | ({} if told is None else {"SELLER": told}), "-c", show)
    assert expected == json.loads(shown.stdout)


def test_what_is_wrong_with_a_seller_is_told_in_words() -> None:
    told = serve(GOOD | {"SELLER": "\t|"}).stderr.strip()
    rule = "must be 1 to 6 lines with | between them, each of 1 to 80 characters, without those of Unicode's category C"
    assert f"PAYORDER_SELLER: {rule}" == told.rpartition("\n")[2]


def test_several_issuers_are_found_by_discovery() -> None:
    show = "from payorder.config import Settings; print(*Settings.from_env().issuers, sep=chr(10))"
    shown = run(GOOD | {"ISSUER": "https://a.example  https://b.example/realms/b/ https://a.example"}, "-c", show)
    assert ["https://a.example", "https://b.example/realms/b/"] == shown.stdout.split()


def test_settings_do_not_show_their_secret() -> None:
    shown = run(GOOD | {"FINGERPRINT_KEY": "leak" * 8}, "-c", SHOW)
    assert (0, False) == (shown.returncode, "leak" in shown.stdout)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "False"),
        ({"ENV": "development"}, "True"),
        ({"ENV": "development", "REFLECTION": "false"}, "False"),
    ],
)
def test_reflection_is_for_development_unless_it_is_said(settings: dict[str, str], expected: str) -> None:
    show = "import os; from payorder.config import Settings; print(Settings.from_env().serves_reflection)"
    assert expected == run(GOOD | settings, "-c", show).stdout.strip()


@pytest.mark.parametrize(
    "settings",
    [
        {"LISTEN": "127.0.0.1:50051"},
        {"LISTEN": "[::1]:50051"},
        {"LISTEN": "unix:/run/payorder.sock"},
        {"LISTEN": "10.0.0.7:50051", "LISTEN_PLAINTEXT": "true"},
        {"LISTEN": "0.0.0.0:50051", "ENV": "development"},
    ],
)
def test_without_tls_production_listens_on_this_machine_or_where_it_is_said(settings: dict[str, str]) -> None:
    show = "from payorder.config import Settings; print(Settings.from_env().listen)"
    assert settings["LISTEN"] == run(GOOD | settings, "-c", show).stdout.strip()


@pytest.mark.parametrize("name", ["GRPC_TRACE", "PYTHONASYNCIODEBUG", "PYTHONDEVMODE"])
def test_in_production_no_library_may_write_down_what_it_is_handed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    show = "from payorder.config import Settings; print(Settings.from_env().env)"
    refused, taken = run(GOOD, "-c", show), run(GOOD | {"ENV": "development"}, "-c", show)
    assert (f"{name}: is not for production", "development") == (
        refused.stderr.strip().rpartition("SettingsFault: ")[2],
        taken.stdout.strip(),
    )


def test_every_setting_with_a_measure_has_its_unit_in_its_name() -> None:
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
    units = ("_days", "_seconds", "_seconds_max", "_bytes_max", "_max", "_size")
    assert set() == {name for name in numbers if not name.endswith(units)}


# Processors

LOAD = """
import os
from payorder.app import load_processor
from payorder.config import Settings
print(type(load_processor(Settings.from_env())).__name__)
"""

OUTSIDE = """
class Outside:
    pass

def from_options(options):
    if options.get("fails"):
        raise ValueError("outside: there is no such option")
    return Outside()
"""


def test_the_sandbox_is_found_by_its_name() -> None:
    assert "Sandbox" == run(GOOD, "-c", LOAD).stdout.strip()


def test_the_processor_of_another_package_is_found_by_its_name(tmp_path: Path) -> None:
    packages = install_processor(tmp_path, "outside", OUTSIDE)
    loaded = run(GOOD | {"PROCESSOR": "outside"}, "-c", LOAD, python_path=packages)
    assert (0, "Outside") == (loaded.returncode, loaded.stdout.strip())


def test_a_processor_that_is_not_installed_is_told_with_those_that_are(tmp_path: Path) -> None:
    packages = install_processor(tmp_path, "outside", OUTSIDE)
    ended = run(GOOD | {"PROCESSOR": "missing"}, "-m", "payorder", "serve", python_path=packages)
    assert "payorder: PAYORDER_PROCESSOR: not installed; there are outside, sandbox" == ended.stderr.strip()


def test_an_option_that_a_processor_does_not_know_is_told(tmp_path: Path) -> None:
    packages = install_processor(tmp_path, "outside", OUTSIDE)
    settings = GOOD | {"PROCESSOR": "outside", "PROCESSOR_OPTIONS": '{"fails": "yes"}'}
    ended = run(settings, "-m", "payorder", "serve", python_path=packages)
    assert "payorder: PAYORDER_PROCESSOR_OPTIONS: outside: there is no such option" == ended.stderr.strip()


def test_importing_every_module_has_no_effect(tmp_path: Path) -> None:
    script = """
import importlib, pkgutil, sys, threading, payorder
for module in pkgutil.walk_packages(payorder.__path__, "payorder."):
    if "migrations" not in module.name:
        importlib.import_module(module.name)
print(threading.active_count(), sorted(__import__("os").listdir(".")))
"""
    environment = environment_without_payorder()
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (0, "1 []", "") == (ended.returncode, ended.stdout.strip(), ended.stderr)
    assert os.environ.get("PAYORDER_ENV") is None
