"""The sandbox: a processor that moves no money and answers from tables, always the same.

It knows the published test numbers and nothing else, so a real card is never approved. Where Stripe's answer depends
on settings, the tables hold the answer with default settings; what Stripe settles days later is answered at once.
Expiry dates are not looked at: it never reads a clock.

Two numbers are ours, on no testing page, to try what a decline cannot show:
4000000004000503 -> Failed, certainly not charged (the caller sees 503)
4000000008000202 -> Unknown, nobody knows yet (the caller sees 202); when asked again, it was never charged
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime
from typing import assert_never

from payorder.domain.money import Money
from payorder.domain.outcome import Approved, Declined, Failed, Outcome, Unknown
from payorder.domain.source import BankAccount, Card, Source
from payorder.ports.processor import Charge, Processor


def _numbers(*rows: str) -> frozenset[str]:
    return frozenset(" ".join(rows).split())


def _accounts(bank: str, numbers: str) -> frozenset[str]:
    """Accounts of one bank, as "bank/number"; `bank` is a routing number or a sort code. An IBAN stands alone."""
    return frozenset(f"{bank}/{number}" for number in numbers.split())


# Source of the cards, if not said otherwise: docs.stripe.com/testing.
APPROVED_CARDS = _numbers(
    # By brand, co-branded, and cards of health and flexible spending accounts
    "4242424242424242 4000056655665556 5555555555554444 2223003122003222 5200828282828210 5105105105105100",
    "378282246310005 371449635398431 6011111111111117 6011000990139424 6011981111111113 3056930009020004",
    "36227206271667 6555900000604105 3566002020360505 6200000000000005 6200000000000047 6205500000000000004",
    "4000002500001001 5555552500001001 4000050360000001 5555050360000080 4000051230000072 5200828282828897",
    # Americas: AR BR CA CL CO CR, EC MX MX PA PY PE UY
    "4000000320000021 4000000760000002 4000001240000000 4000001520000001 4000001700000003 4000001880000005",
    "4000002180000000 4000004840008001 5062210000000009 4000005910000000 4000006000000066 4000006040000068",
    "4000008580000003",
    # Europe and Middle East: AE AE AT BE BG BY, HR CY CZ DK EE FI, FR DE GI GR HU IE, IT LV LI LT LU MT,
    # NL NO PL PT RO SA, SI SK ES SE CH, GB GB GB
    "4000007840000001 5200007840000022 4000000400000008 4000000560000004 4000001000000000 4000001120000005",
    "4000001910000009 4000001960000008 4000002030000002 4000002080000001 4000002330000009 4000002460000001",
    "4000002500000003 4000002760000016 4000002920000005 4000003000000030 4000003480000005 4000003720000005",
    "4000003800000008 4000004280000005 4000004380000004 4000004400000000 4000004420000006 4000004700000007",
    "4000005280000002 4000005780000007 4000006160000005 4000006200000007 4000006420000001 4000006820000007",
    "4000007050000006 4000007030000001 4000007240000007 4000007520000008 4000007560000009",
    "4000008260000000 4000058260000005 5555558265554449",
    # Asia Pacific: AU CN HK IN JP JP, MY NZ SG TW TH TH
    "4000000360000006 4000001560000002 4000003440000004 4000003560000008 4000003920000003 3530111333300000",
    "4000004580000002 4000005540000008 4000007020000003 4000001580000008 4000007640000003 4000057640000008",
    # Risk that only settings of one's own would block; address checks that fail or are unavailable
    "4000000000009235 4000008400000407 4000008400000159 4000008400001017 4001858821843804 4000008405600003",
    "4000000000000036 4000058400306072 4000000000000028 4000000000000010 4000000000000044",
    # Disputed later, or the dispute prevented
    "4000000000000259 4000000000002685 4000000000001976 4000000000005423 4000000404000079 4000000404000038",
    "4000008400000779 5105008400000002 4000000001000043 4000000404004816 4000000404005649 5105000300000018",
    # Refunds that succeed or fail later; funds available at once; PIN; a captcha, which only a payment page shows
    "4000000000007726 4000000000005126 4000000000000077 4000003720000278",
    "4001007020000002 4000008260000075 4001000360000005 4000002760000008 4000000000001208 4000000000003725",
    # 3D Secure supported but not required, or done without asking the payer
    "4000000000003055 4000000000003097 4000000032200000",
    # Earlier editions of that page
    "4012888888881881 30569309025904 38520000023237 4000004840000008 4000006430000009 4000000000000093",
    # GOV.UK Pay's sandbox (docs.payments.service.gov.uk)
    "4444333322221111",
)

DECLINED_CARDS = {
    "card_declined": _numbers("4000000000000002 4000000000000341 4000008400001629 4000008400001280"),
    "insufficient_funds": _numbers("4000000000009995 4000008260003178"),
    "lost_card": _numbers("4000000000009987"),
    "stolen_card": _numbers("4000000000009979"),
    "expired_card": _numbers("4000000000000069"),
    "processing_error": _numbers("4000000000000119"),
    "incorrect_number": _numbers("4242424242424241"),
    "card_velocity_exceeded": _numbers("4000000000006975"),
    "fraudulent": _numbers("4100000000000019 4000000000004954"),
    # 3D Secure wanted: there is nobody here to ask. The last row is an earlier edition's.
    "authentication_required": _numbers(
        "4000002500003155 4000002760003184 4000003800000446 4000000000003220 4000008400000027",
        "4000582600000094 4000582600000045 4000582600000102 4000582600000110",
        "4000000000003063 4000000000003238 4000000000003246 4000000000003253",
    ),
}

# Declined with incorrect_cvc if a CVC was sent: a check that is not made cannot fail.
CVC_FAILING_CARDS = _numbers("4000000000000127 4000000000000101 4000058400307872")

# Source of the accounts, if not said otherwise: docs.stripe.com/testing, which has for each country of SEPA three IBANs
# that succeed (at once, later, then disputed), two that fail (at once, later), and one for each limit and for no funds.
APPROVED_ACCOUNTS = (
    _accounts("000123", "00012345")  # the documented example of PayOrder
    | _accounts("110000000", "000123456789 000555555559")  # ACH
    | _accounts("108800", "00012345 90012345 55555559")  # Bacs
    | _accounts("000000", "000123456 900123456 666666660")  # BECS: the BSB is in the sort code
    | _numbers(
        "AT611904300234573201 AT321904300235473204 AT591904300235473203 BE62510007547061 BE78510007547064",
        "BE08510007547063 HR7624020064583467589 HR6323600002337876649 HR8724840081455523553 EE382200221020145685",
        "EE222200221020145682 EE492200221020145681 FI2112345600000785 FI3712345600000788 FI6412345600000787",
        "FR1420041010050500013M02606 FR3020041010050500013M02609 FR5720041010050500013M02608 DE89370400440532013000",
        "DE08370400440532013003 DE35370400440532013002 GI60MPFS599327643783385 GI08RRNW626436291644533",
        "GI26KJBC361883934534696 IE29AIBK93115212345678 IE24AIBK93115212345671 IE51AIBK93115212345670",
        "LI0508800636123378777 LI4408800387787111369 LI7708800125525347723 LT121000011101001000",
        "LT281000011101001003 LT551000011101001002 LU280019400644750000 LU440019400644750003 LU710019400644750002",
        "NL39RABO0300065264 NL55RABO0300065267 NL82RABO0300065266 NO9386011117947 NO8886011117940 NO3986011117949",
        "PT50000201231234567890154 PT66000201231234567890157 PT93000201231234567890156 ES0700120345030000067890",
        "ES2300120345030000067893 ES5000120345030000067892 SE3550000000054910000003 SE5150000000054910000006",
        "SE7850000000054910000005 CH9300762011623852957 CH8656663438253651553 CH1260378413965193069",
        "GB82WEST12345698765432 GB98WEST12345698765435 GB28WEST12345698765434",
    )
)

DECLINED_ACCOUNTS = {
    # 122105278 is Finix's test bank: ACH return codes R01 and R02.
    "insufficient_funds": _accounts("110000000", "000222222227")
    | _accounts("122105278", "123120006")
    | _accounts("108800", "22222227 92222227")
    | _numbers(
        "AT981904300002222227 BE90510002222227 HR7424020060002222227 EE672200000002222227 FI6712345602222227",
        "FR9720041010050000002222227 DE65370400440002222227 GI14NWBK000000002222227 IE10AIBK93115202222227",
        "LI2408800000002222227 LT591000000002222227 LU900010000002222227 NL27RABO0002222227 NO0586012222227",
        "PT05000201230000002222227 ES1700120345000002222227 SE2850000000000002222227 CH1800762000002222227",
        "GB70WEST12345602222227",
    ),
    "account_closed": _accounts("110000000", "000111111113")
    | _accounts("122105278", "123120007")
    | _accounts("000000", "111111113"),
    "no_account": _accounts("110000000", "000111111116") | _accounts("000000", "111111116"),
    "debit_not_authorized": _accounts("110000000", "000333333335")
    | _accounts("108800", "33333335 93333335")
    | _accounts("000000", "333333335"),
    "invalid_currency": _accounts("110000000", "000444444440"),
    "payment_method_microdeposit_failed": _accounts("110000000", "000666666661"),
    "tokenized_account_number_deactivated": _accounts("110000000", "000888888885"),
    "fraudulent": _accounts("110000000", "000000004954"),
    "payment_intent_mandate_invalid": _accounts("108800", "00033333"),
    "refer_to_customer": _accounts("000000", "222222227 922222227"),
    "generic_could_not_process": _numbers(
        "AT861904300235473202 AT051904300235473205 BE68539007547034 BE51510007547065 HR2725000096983499248",
        "HR6723600004878117427 EE762200221020145680 EE922200221020145683 FI9112345600000786 FI1012345600000789",
        "FR8420041010050500013M02607 FR7920041010050500013M02600 DE62370400440532013001 DE78370400440532013004",
        "GI41SAFA461293238477751 GI50LROG772261344693297 IE02AIBK93115212345679 IE94AIBK93115212345672",
        "LI1208800143823175626 LI4908800356441975566 LT821000011101001001 LT981000011101001004 LU980019400644750001",
        "LU170019400644750004 NL91ABNA0417164300 NL28RABO0300065268 NO6686011117948 NO6186011117941",
        "PT23000201231234567890155 PT39000201231234567890158 ES9121000418450200051332 ES9300120345030000067894",
        "SE0850000000054910000004 SE2450000000054910000007 CH5362200119938136497 CH1843597160341964438",
        "GB55WEST12345698765433 GB71WEST12345698765436",
    ),
    "charge_exceeds_source_limit": _accounts("110000000", "000777777771")
    | _accounts("108800", "34343434")
    | _accounts("000000", "343434343")
    | _numbers(
        "AT981904300000343434 BE90510000343434 HR7424020060000343434 EE672200000000343434 FI6712345600343434",
        "FR9720041010050000000343434 DE65370400440000343434 GI14NWBK000000000343434 IE10AIBK93115200343434",
        "LI2408800000000343434 LT591000000000343434 LU900010000000343434 NL27RABO0000343434 NO0586010343434",
        "PT05000201230000000343434 ES1700120345000000343434 SE2850000000000000343434 CH1800762000000343434",
        "GB70WEST12345600343434",
    ),
    "charge_exceeds_weekly_limit": _numbers(
        "AT601904300000121212 BE52510000121212 HR3624020060000121212 EE292200000000121212 FI2912345600121212",
        "FR5920041010050000000121212 DE27370400440000121212 GI73NWBK000000000121212 IE69AIBK93115200121212",
        "LI8308800000000121212 LT211000000000121212 LU520010000000121212 NL86RABO0000121212 NO6486010121212",
        "PT64000201230000000121212 ES7600120345000000121212 SE8750000000000000121212 CH7700762000000121212",
        "GB32WEST12345600121212",
    ),
    "charge_exceeds_transaction_limit": _accounts("108800", "12121212") | _accounts("000000", "121212121"),
    "sepa_debit_bank_not_supported": _numbers(
        "AT271904300000055555 BE19510000055555 DE91370400440000055555 FR2620041010050000000055555",
        "IE36AIBK93115200055555",
    ),
    "sepa_debit_debits_not_supported": _numbers(
        "AT511904300000066666 BE43510000066666 DE18370400440000066666 FR5020041010050000000066666",
        "IE60AIBK93115200066666",
    ),
}

_OTHER_CARDS: Mapping[str, Outcome] = {
    "4000000004000503": Failed("unreachable"),
    "4000000008000202": Unknown(),
    **{number: Declined(code) for code, numbers in DECLINED_CARDS.items() for number in numbers},
}
_OTHER_ACCOUNTS: Mapping[str, Outcome] = {
    "110000000/000000000009": Unknown(),  # at Stripe it stays in processing forever
    **{account: Declined(code) for code, accounts in DECLINED_ACCOUNTS.items() for account in accounts},
}

_KEYS_MAX = 100_000
_LATENCY = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3})?", re.ASCII)


class Sandbox:
    """Charges nobody, once for each key. Every answer comes `latency_seconds` late. A restart forgets everything."""

    def __init__(self, *, latency_seconds: float, keys_max: int) -> None:
        self._latency_seconds = latency_seconds
        self._keys_max = keys_max
        self._ends: OrderedDict[str, tuple[Outcome, Money]] = OrderedDict()

    async def charge(self, key: str, amount: Money, source: Source) -> Outcome:
        # Decided before the first await: concurrent charges of one key are one; a caller who leaves changes nothing.
        return await self._end(key, _outcome(key, source), amount)

    async def cancel(self, key: str, amount: Money) -> Outcome:
        outcome, charged = self._ends.get(key, (Unknown(), amount))
        if isinstance(outcome, Unknown):
            self._ends.pop(key, None)
        end = await self._end(key, Failed("cancelled"), charged)
        return end if charged == amount else Unknown()

    async def refund(self, key: str, reference: str, amount: Money) -> Outcome:
        await asyncio.sleep(self._latency_seconds)
        return Approved(f"sandbox_{key}")

    async def charges(self, since: datetime) -> list[Charge]:
        """All that are remembered, because without a clock none is older than another."""
        return [
            Charge(key, outcome.reference, amount)
            for key, (outcome, amount) in self._ends.items()
            if isinstance(outcome, Approved)
        ]

    async def close(self) -> None:
        """There is nothing to give back."""

    async def _end(self, key: str, outcome: Outcome, amount: Money) -> Outcome:
        """How the key ended: as it did before, or else as `outcome` says."""
        ended, _ = self._ends.setdefault(key, (outcome, amount))
        # Memory has a limit, so the oldest key goes. Sent again it gets the same answer, if its source is the same.
        if len(self._ends) > self._keys_max:
            self._ends.popitem(last=False)
        await asyncio.sleep(self._latency_seconds)
        return ended


def from_options(options: Mapping[str, str]) -> Processor:
    """The sandbox with `latency_seconds`, a decimal string up to "999.999"; without it, no latency."""
    unknown = sorted(options.keys() - {"latency_seconds"})
    if unknown:
        raise ValueError(f"sandbox: unknown option {', '.join(unknown)}; the only one is latency_seconds")
    latency_seconds = options.get("latency_seconds", "0")
    if _LATENCY.fullmatch(latency_seconds) is None:
        raise ValueError("sandbox: latency_seconds must be a decimal number such as 0.25, at most 999.999")
    return Sandbox(latency_seconds=float(latency_seconds), keys_max=_KEYS_MAX)


def _outcome(key: str, source: Source) -> Outcome:
    approved = Approved(f"sandbox_{key}")
    match source:
        case Card():
            number = source.number.reveal()
            if number in CVC_FAILING_CARDS:
                return approved if source.cvc is None else Declined("incorrect_cvc")
            if number in APPROVED_CARDS:
                return approved
            return _OTHER_CARDS.get(number, Declined("test_mode_live_card"))
        case BankAccount():
            account = _account(source)
            if account in APPROVED_ACCOUNTS:
                return approved
            return _OTHER_ACCOUNTS.get(account, Declined("invalid_account"))
        case _:
            assert_never(source)


def _account(source: BankAccount) -> str:
    number = source.number.reveal()
    is_iban = number[:2].isalpha()
    return number if is_iban else f"{source.routing_number or source.sort_code}/{number}"
