"""Whether the time of an answer tells somebody else's order from one that does not exist."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from math import sqrt
from random import Random
from statistics import median, quantiles
from time import perf_counter

import grpc

from bench.load.calls import AMOUNT, CURRENCY
from bench.measure import Mismatch
from bench.report import Goal, Section
from bench.sizes import Sizes
from bench.stage import SCOPE, Stage, Target
from payments.v1.order_service_pb2 import CreateOrderRequest, GetOrderRequest
from payments.v1.order_service_pb2_grpc import OrderServiceStub
from payorder.adapters.system import new_id

_OWNER, _STRANGER = "owner", "stranger"
# Different ids, so that no single row or page of an index is what is measured.
_ORDERS = 200
_WARM_UP_ROUNDS = 2
_SEED = 1
# Of the normal distribution: 95 of 100 lie within.
_DEVIATIONS = 1.96


@dataclass(frozen=True, slots=True)
class Comparison:
    """`auc` is how often an answer about a foreign order takes longer than one about none (Mann-Whitney U / n m).

    One half says that time tells nothing; with times of one distribution it lies within `margin` of it in 95 of 100.
    """

    samples: int
    foreign_median_ms: float
    foreign_p95_ms: float
    unknown_median_ms: float
    unknown_p95_ms: float
    auc: float
    margin: float

    @classmethod
    def of(cls, foreign: Sequence[float], unknown: Sequence[float]) -> "Comparison":
        count, other = len(foreign), len(unknown)
        return cls(
            samples=count,
            foreign_median_ms=median(foreign) * 1000,
            foreign_p95_ms=_p95(foreign) * 1000,
            unknown_median_ms=median(unknown) * 1000,
            unknown_p95_ms=_p95(unknown) * 1000,
            auc=_auc(foreign, unknown),
            margin=_DEVIATIONS * sqrt((count + other + 1) / (12 * count * other)),
        )


async def measure(stage: Stage, sizes: Sizes) -> list[Section]:
    found = {}
    for engine, url in (("SQLite", await stage.sqlite_url()), ("PostgreSQL", await stage.postgres_url("strangers"))):
        target = await stage.payorder(f"GetOrder on {engine}", url)
        found[target.name] = await _compare(stage, target, sizes.samples)
        print(f"  {target.name}: AUC {found[target.name].auc:.3f}", flush=True)
    return [_section(found, sizes)]


def _section(found: dict[str, Comparison], sizes: Sizes) -> Section:
    return Section(
        name="foreign",
        title="Somebody else's order against none",
        about=f"GetOrder over gRPC, one call at a time, {sizes.samples:,} of each kind in pairs, in a random order. "
        "AUC is how often the foreign order takes longer: 0.5 says that time tells nothing.",
        columns=("calls", "foreign p50 ms", "p95 ms", "unknown p50 ms", "p95 ms", "AUC", "95 % interval", "told apart"),
        rows=[_row(name, each) for name, each in found.items()],
        goals=list(chain.from_iterable(_goals(name, each) for name, each in found.items())),
        data={name: asdict(each) for name, each in found.items()},
    )


def _row(name: str, each: Comparison) -> list[str]:
    low, high = each.auc - each.margin, each.auc + each.margin
    return [
        name,
        f"{each.foreign_median_ms:.3f}",
        f"{each.foreign_p95_ms:.3f}",
        f"{each.unknown_median_ms:.3f}",
        f"{each.unknown_p95_ms:.3f}",
        f"{each.auc:.3f}",
        f"{low:.3f} to {high:.3f}",
        "no" if low <= 1 / 2 <= high else "by many samples",
    ]


def _goals(name: str, each: Comparison) -> list[Goal]:
    difference = abs(each.foreign_median_ms - each.unknown_median_ms)
    return [
        Goal(f"{name}: foreign against unknown, medians", difference, "at most", 1, " ms"),
        Goal(f"{name}: foreign against unknown, AUC from 0.5", abs(each.auc - 1 / 2), "at most", 0.05, ""),
    ]


async def _compare(stage: Stage, target: Target, samples: int) -> Comparison:
    random = Random(_SEED)  # noqa: S311 - an order of calls, no secret
    metadata = (("authorization", f"Bearer {stage.issuer.token(subject=_STRANGER, scope=SCOPE)}"),)
    async with grpc.aio.insecure_channel(target.address) as channel:
        stub = OrderServiceStub(channel)
        ids = {"foreign": await _foreign(stage, stub), "unknown": [new_id() for _ in range(_ORDERS)]}
        seconds: dict[str, list[float]] = {kind: [] for kind in ids}
        for number in range(-_WARM_UP_ROUNDS * _ORDERS, samples):
            for kind in random.sample(list(ids), len(ids)):
                taken = await _refused(stub, ids[kind][number % _ORDERS], metadata)
                if number >= 0:
                    seconds[kind].append(taken)
    return Comparison.of(seconds["foreign"], seconds["unknown"])


async def _foreign(stage: Stage, stub: OrderServiceStub) -> list[str]:
    metadata = (("authorization", f"Bearer {stage.issuer.token(subject=_OWNER, scope=SCOPE)}"),)
    request = CreateOrderRequest(total_amount=AMOUNT, currency=CURRENCY)
    return [(await stub.CreateOrder(request, metadata=metadata)).id for _ in range(_ORDERS)]


async def _refused(stub: OrderServiceStub, order_id: str, metadata: tuple[tuple[str, str], ...]) -> float:
    began = perf_counter()
    try:
        await stub.GetOrder(GetOrderRequest(order_id=order_id), metadata=metadata)
    except grpc.aio.AioRpcError as error:
        taken = perf_counter() - began
        if error.code() is not grpc.StatusCode.NOT_FOUND:
            raise Mismatch(f"not found was to come, and {error.code().name} came") from error
        return taken
    raise Mismatch("a stranger has read an order")


def _p95(seconds: Sequence[float]) -> float:
    return quantiles(seconds, n=20)[-1]


def _auc(foreign: Sequence[float], unknown: Sequence[float]) -> float:
    """From the sum of ranks; times this fine are hardly ever equal."""
    ranked = sorted([(each, True) for each in foreign] + [(each, False) for each in unknown])
    ranks = sum(rank for rank, (_, is_foreign) in enumerate(ranked, 1) if is_foreign)
    count = len(foreign)
    return (ranks - count * (count + 1) / 2) / (count * len(unknown))
