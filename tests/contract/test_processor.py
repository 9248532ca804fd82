"""What every processor promises, asked of each; then what only the sandbox does.

The published numbers are Stripe's (docs.stripe.com/testing), GOV.UK Pay's and Finix's. Every processor in its test mode
answers them alike, so the tables are one.
"""

import ast
import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import chain

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from payorder.adapters.processors import sandbox
from payorder.adapters.processors.sandbox import Sandbox, from_options
from payorder.domain.money import Currency, Money
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.secret import Secret
from payorder.domain.source import Address, BankAccount, Card, Source
from payorder.ports.processor import Processor, ProcessorFactory

AMOUNT = Money(4999, Currency("GBP", 2))

PROCESSORS: list[Callable[[], Processor]] = [
    lambda: from_options({}),
]

APPROVED_CARDS = {
    "4242424242424242": "Visa",
    "4000056655665556": "Visa debit",
    "5555555555554444": "Mastercard",
    "2223003122003222": "Mastercard, 2-series",
    "5200828282828210": "Mastercard debit",
    "5105105105105100": "Mastercard prepaid",
    "378282246310005": "Amex",
    "371449635398431": "Amex",
    "6011111111111117": "Discover",
    "3056930009020004": "Diners, 16 digits",
    "36227206271667": "Diners, 14 digits",
    "6555900000604105": "BCcard",
    "3566002020360505": "JCB",
    "6200000000000005": "UnionPay",
    "6205500000000000004": "UnionPay, 19 digits",
    "4000002500001001": "Cartes Bancaires and Visa",
    "5555050360000080": "eftpos and Mastercard",
    "4000051230000072": "health savings",
    "4000004840008001": "Mexico",
    "5062210000000009": "Mexico, Carnet",
    "4000007840000001": "United Arab Emirates",
    "4000002760000016": "Germany",
    "4000008260000000": "United Kingdom",
    "4000058260000005": "United Kingdom, debit",
    "5555558265554449": "United Kingdom, Mastercard",
    "3530111333300000": "Japan, JCB",
    "4000057640000008": "Thailand, debit",
    "4000000000009235": "elevated risk",
    "4000000000000036": "postal code check fails",
    "4000000000000028": "line 1 check fails",
    "4000000000000010": "both address checks fail",
    "4000000000000044": "address checks unavailable",
    "4000000000000259": "disputed as fraudulent",
    "4000000000002685": "disputed as not received",
    "4000000000001976": "inquiry",
    "4000000000005423": "early fraud warning",
    "4000000404000079": "disputed more than once",
    "4000000000007726": "refund succeeds later",
    "4000000000005126": "refund fails later",
    "4000000000000077": "available at once",
    "4000003720000278": "available at once, international",
    "4000000000003055": "3DS supported",
    "4000000000003097": "3DS supported, would fail",
    "4000000032200000": "3DS without a challenge",
    "4444333322221111": "GOV.UK Pay",
}

DECLINED_CARDS = {
    "4000000000000002": "card_declined",
    "4000000000000341": "card_declined",
    "4000000000009995": "insufficient_funds",
    "4000000000009987": "lost_card",
    "4000000000009979": "stolen_card",
    "4000000000000069": "expired_card",
    "4000000000000127": "incorrect_cvc",
    "4000000000000101": "incorrect_cvc",
    "4000058400307872": "incorrect_cvc",
    "4000000000000119": "processing_error",
    "4000000000006975": "card_velocity_exceeded",
    "4242424242424241": "incorrect_number",
    "4100000000000019": "fraudulent",
    "4000000000004954": "fraudulent",
    "4000002500003155": "authentication_required",
    "4000002760003184": "authentication_required",
    "4000003800000446": "authentication_required",
    "4000000000003220": "authentication_required",
    "4000008400000027": "authentication_required",
    "4000582600000045": "authentication_required",
    "4000008260003178": "insufficient_funds",
    "4000008400001629": "card_declined",
    "4000008400001280": "card_declined",
}

CARDS_WITH_A_CVC_CHECK_THAT_FAILS = ["4000000000000127", "4000000000000101", "4000058400307872"]

# Luhn-valid and on no testing page.
UNKNOWN_CARDS = ["4242424242424259", "4000000000000036000", "4929000000006", "30000000000004", "4556737586899855"]

APPROVED_ACCOUNTS = [
    "000123/00012345",  # the documented example
    "108800/00012345",
    "108800/90012345",
    "110000000/000123456789",
    "110000000/000555555559",
    "000000/000123456",
    "/DE89370400440532013000",
    "/FR1420041010050500013M02606",
    "/NO9386011117947",
    "/GB82WEST12345698765432",
    "/AT321904300235473204",  # at Stripe after three minutes
    "/IE51AIBK93115212345670",  # disputed later
]

DECLINED_ACCOUNTS = {
    "110000000/000111111113": "account_closed",
    "110000000/000111111116": "no_account",
    "110000000/000222222227": "insufficient_funds",
    "110000000/000333333335": "debit_not_authorized",
    "110000000/000444444440": "invalid_currency",
    "110000000/000777777771": "charge_exceeds_source_limit",
    "110000000/000000004954": "fraudulent",
    "122105278/123120006": "insufficient_funds",
    "122105278/123120007": "account_closed",
    "108800/22222227": "insufficient_funds",
    "108800/33333335": "debit_not_authorized",
    "108800/34343434": "charge_exceeds_source_limit",
    "108800/12121212": "charge_exceeds_transaction_limit",
    "000000/222222227": "refer_to_customer",
    "/NL91ABNA0417164300": "generic_could_not_process",
    "/ES9121000418450200051332": "generic_could_not_process",
    "/DE65370400440000343434": "charge_exceeds_source_limit",
    "/DE27370400440000121212": "charge_exceeds_weekly_limit",
    "/DE65370400440002222227": "insufficient_funds",
}

UNKNOWN_ACCOUNTS = [
    "000123/00012346",
    "000124/00012345",
    "/00012345",  # neither a sort code nor a routing number
    "108800/00044444",
    "110000000/00012345",
    "011000015/000123456789",
    "/GB29NWBK60161331926819",
]


@pytest_asyncio.fixture(params=PROCESSORS, ids=["sandbox"])
async def processor(request: pytest.FixtureRequest) -> AsyncIterator[Processor]:
    open_processor: Callable[[], Processor] = request.param
    opened = open_processor()
    yield opened
    await opened.close()


@pytest.mark.parametrize("number", APPROVED_CARDS)
async def test_a_published_good_card_is_approved(processor: Processor, number: str) -> None:
    outcome = await processor.charge(f"good-{number}", AMOUNT, card(number))
    assert isinstance(outcome, Approved)
    assert outcome.reference


@pytest.mark.parametrize(("number", "code"), DECLINED_CARDS.items())
async def test_a_published_bad_card_is_declined_with_its_code(processor: Processor, number: str, code: str) -> None:
    assert Declined(code) == await processor.charge(f"bad-{number}", AMOUNT, card(number))


@pytest.mark.parametrize("number", CARDS_WITH_A_CVC_CHECK_THAT_FAILS)
async def test_a_cvc_that_was_not_sent_is_not_wrong(processor: Processor, number: str) -> None:
    assert isinstance(await processor.charge(f"no-cvc-{number}", AMOUNT, card(number, cvc=None)), Approved)


@pytest.mark.parametrize("number", UNKNOWN_CARDS)
async def test_a_card_that_is_no_test_card_is_not_approved(processor: Processor, number: str) -> None:
    assert Declined("test_mode_live_card") == await processor.charge(f"unknown-{number}", AMOUNT, card(number))


@pytest.mark.parametrize("account", APPROVED_ACCOUNTS)
async def test_a_published_good_account_is_approved(processor: Processor, account: str) -> None:
    assert isinstance(await processor.charge(f"good-{account}", AMOUNT, bank_account(account)), Approved)


@pytest.mark.parametrize(("account", "code"), DECLINED_ACCOUNTS.items())
async def test_a_published_bad_account_is_declined_with_its_code(processor: Processor, account: str, code: str) -> None:
    assert Declined(code) == await processor.charge(f"bad-{account}", AMOUNT, bank_account(account))


@pytest.mark.parametrize("account", UNKNOWN_ACCOUNTS)
async def test_an_account_that_is_no_test_account_is_not_approved(processor: Processor, account: str) -> None:
    assert Declined("invalid_account") == await processor.charge(f"unknown-{account}", AMOUNT, bank_account(account))


@pytest.mark.parametrize("number", ["4242424242424242", "4000000000009995"])
async def test_one_key_has_one_outcome(processor: Processor, number: str) -> None:
    first = await processor.charge("key", AMOUNT, card(number))
    assert first == await processor.charge("key", AMOUNT, card(number))


async def test_two_keys_are_two_charges(processor: Processor) -> None:
    outcomes = [await processor.charge(key, AMOUNT, card("4242424242424242")) for key in ("one", "two")]
    references = {outcome.reference for outcome in outcomes if isinstance(outcome, Approved)}
    assert 2 == len(references)


async def test_one_key_at_one_time_is_one_charge(processor: Processor) -> None:
    charges = [processor.charge("key", AMOUNT, card("4242424242424242")) for _ in range(50)]
    outcomes = set(await asyncio.gather(*charges))
    assert 1 == len(outcomes)
    assert isinstance(outcomes.pop(), Approved)


# The sandbox alone.


async def test_the_documented_card_is_approved_although_it_has_expired() -> None:
    outcome = await from_options({}).charge("key", AMOUNT, card("4242424242424242", exp_month=12, exp_year=2025))
    assert Approved("sandbox_key") == outcome


@pytest.mark.parametrize("exp_year", [1970, 2024, 2025, 2026, 9999])
async def test_no_expiry_date_changes_an_answer(exp_year: int) -> None:
    source = card("4242424242424242", exp_month=1, exp_year=exp_year)
    assert Approved("sandbox_key") == await from_options({}).charge("key", AMOUNT, source)


@pytest.mark.parametrize("amount", [Money(1, Currency("JPY", 0)), Money(10**16 - 1, Currency("CLF", 4))])
async def test_no_amount_changes_an_answer(amount: Money) -> None:
    assert Approved("sandbox_key") == await from_options({}).charge("key", amount, card("4242424242424242"))


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        (lambda: card("4000000004000503"), Failed("unreachable")),
        (lambda: card("4000000008000202"), Unknown()),
        (lambda: bank_account("110000000/000000000009"), Unknown()),
    ],
    ids=["unreachable", "unknown", "processing forever"],
)
async def test_trouble_with_the_processor_can_be_tried(source: Callable[[], Source], outcome: Outcome) -> None:
    assert outcome == await from_options({}).charge("key", AMOUNT, source())


async def test_one_key_keeps_its_first_outcome_whatever_comes_later() -> None:
    processor = from_options({})
    first = await processor.charge("key", AMOUNT, card("4000000000009995"))
    second = await processor.charge("key", AMOUNT, card("4242424242424242"))
    assert Declined("insufficient_funds") == first
    assert first is second


async def test_one_key_at_one_time_keeps_the_outcome_of_the_first_to_come() -> None:
    processor = from_options({"latency_seconds": "0.001"})
    numbers = ["4000000000009995", "4242424242424242", "4000000004000503"]
    outcomes = await asyncio.gather(*(processor.charge("key", AMOUNT, card(number)) for number in numbers))
    assert [Declined("insufficient_funds")] * 3 == outcomes


async def test_a_caller_who_leaves_does_not_undo_a_charge() -> None:
    processor = from_options({"latency_seconds": "0.01"})
    charging = asyncio.ensure_future(processor.charge("key", AMOUNT, card("4000000000009995")))
    await asyncio.sleep(0)
    charging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await charging
    again = await processor.charge("key", AMOUNT, card("4242424242424242"))
    assert Declined("insufficient_funds") == again


async def test_memory_has_a_limit_and_the_oldest_key_goes_first() -> None:
    processor = Sandbox(latency_seconds=0, keys_max=2)
    for key in ("oldest", "older", "newest"):
        await processor.charge(key, AMOUNT, card("4242424242424242"))
    asked = {key: await processor.charge(key, AMOUNT, card("4000000000009995")) for key in ("newest", "older")}
    assert {"newest": Approved("sandbox_newest"), "older": Approved("sandbox_older")} == asked
    assert Declined("insufficient_funds") == await processor.charge("oldest", AMOUNT, card("4000000000009995"))


async def test_a_forgotten_key_with_the_same_source_has_the_same_outcome() -> None:
    processor = Sandbox(latency_seconds=0, keys_max=1)
    outcomes = [await processor.charge(key, AMOUNT, card("4242424242424242")) for key in ("key", "other", "key")]
    assert outcomes[0] == outcomes[2]


async def test_an_answer_waits_for_the_latency() -> None:
    answered: list[str] = []

    async def charge(name: str, processor: Processor) -> None:
        await processor.charge(name, AMOUNT, card("4242424242424242"))
        answered.append(name)

    slow, fast = from_options({"latency_seconds": "0.05"}), from_options({})
    await asyncio.gather(charge("slow", slow), charge("fast", fast))
    assert ["fast", "slow"] == answered


@pytest.mark.parametrize("latency_seconds", ["0", "0.0", "0.25", "1", "10", "999.999", "007"])
def test_a_decimal_number_of_seconds_is_a_latency(latency_seconds: str) -> None:
    factory: ProcessorFactory = from_options
    assert isinstance(factory({"latency_seconds": latency_seconds}), Sandbox)


@pytest.mark.parametrize(
    "latency_seconds",
    [
        "",
        " ",
        "-1",
        "+1",
        "1s",
        "1,5",
        ".5",
        "5.",
        "1e3",
        "nan",
        "inf",
        "1_0",
        "0x1",
        "1000",
        "0.0001",
        "1\n",
        "\uff11",
    ],
)
def test_anything_else_is_no_latency(latency_seconds: str) -> None:
    with pytest.raises(ValueError, match="latency_seconds must be a decimal number"):
        from_options({"latency_seconds": latency_seconds})


@pytest.mark.parametrize("options", [{"latency": "1"}, {"Latency_Seconds": "1"}, {"latency_seconds": "1", "seed": "1"}])
def test_an_unknown_option_is_named(options: Mapping[str, str]) -> None:
    (unknown,) = options.keys() - {"latency_seconds"}
    with pytest.raises(ValueError, match=f"unknown option {unknown};"):
        from_options(options)


def test_the_sandbox_reads_no_clock_and_rolls_no_dice() -> None:
    imported: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(sandbox))):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    outside = {name for name in imported if not name.startswith("payorder.")}
    # datetime names the type of an argument; nothing asks it for the time.
    assert {"asyncio", "re", "collections", "collections.abc", "datetime", "typing"} == outside
    assert not re.search(r"\b(now|today|utcnow)\(", inspect.getsource(sandbox))


@given(number=st.text("0123456789", min_size=13, max_size=19))
def test_no_number_outside_the_tables_is_approved(number: str) -> None:
    is_published = number in sandbox.APPROVED_CARDS | sandbox.CVC_FAILING_CARDS
    outcome = asyncio.run(from_options({}).charge("key", AMOUNT, card(number, cvc=None)))
    assert is_published == isinstance(outcome, Approved)


def test_no_number_has_two_outcomes() -> None:
    cards = [*sandbox.APPROVED_CARDS, *sandbox.CVC_FAILING_CARDS, *chain(*sandbox.DECLINED_CARDS.values())]
    accounts = [*sandbox.APPROVED_ACCOUNTS, *chain(*sandbox.DECLINED_ACCOUNTS.values())]
    assert [] == [number for number in {*cards, *accounts} if (cards + accounts).count(number) > 1]


def test_every_card_of_the_tables_would_pass_the_form_rules_but_the_one_that_must_not() -> None:
    cards = {*sandbox.APPROVED_CARDS, *sandbox.CVC_FAILING_CARDS, *chain(*sandbox.DECLINED_CARDS.values())}
    cards |= {"4000000004000503", "4000000008000202"}
    assert {"4242424242424241"} == {number for number in cards if not passes_luhn(number)}
    assert set() == {number for number in cards if not 13 <= len(number) <= 19}


def test_every_iban_of_the_tables_has_right_check_digits() -> None:
    accounts = {*sandbox.APPROVED_ACCOUNTS, *chain(*sandbox.DECLINED_ACCOUNTS.values())}
    ibans = {account for account in accounts if "/" not in account}
    assert len(ibans) > 150
    assert set() == {iban for iban in ibans if not passes_mod_97(iban)}


def test_every_country_of_sepa_has_the_same_ibans() -> None:
    tables = {"approved": sandbox.APPROVED_ACCOUNTS, **sandbox.DECLINED_ACCOUNTS}
    expected = {
        "approved": 3,
        "generic_could_not_process": 2,
        "insufficient_funds": 1,
        "charge_exceeds_source_limit": 1,
        "charge_exceeds_weekly_limit": 1,
    }
    countries = {account[:2] for account in tables["charge_exceeds_weekly_limit"]}
    assert 19 == len(countries)
    for country in countries:
        counts = {name: sum(account.startswith(country) for account in tables[name]) for name in expected}
        assert (country, expected) == (country, counts)


def card(number: str, *, cvc: str | None = "123", exp_month: int = 12, exp_year: int = 2034) -> Card:
    return Card(
        name="J. Doe",
        number=Secret(number),
        cvc=None if cvc is None else Secret(cvc),
        exp_month=exp_month,
        exp_year=exp_year,
        address=Address(line1="123 Fake Street", city="London", country="gb", post_code="N12 9XX"),
    )


def bank_account(account: str) -> BankAccount:
    """`account` is "routing number/number" (nine digits), "sort code/number" (six) or "/number"."""
    bank, number = account.split("/")
    return BankAccount(
        name="J. Doe",
        number=Secret(number),
        sort_code=bank if len(bank) == 6 else None,
        routing_number=bank if len(bank) == 9 else None,
        account_type="individual",
        bank_name="Starling Bank",
        country="gb",
    )


def passes_luhn(number: str) -> bool:
    odd, even = number[-1::-2], number[-2::-2]
    return (sum(map(int, odd)) + sum(sum(divmod(2 * int(digit), 10)) for digit in even)) % 10 == 0


def passes_mod_97(iban: str) -> bool:
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1
