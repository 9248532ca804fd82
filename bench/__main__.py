"""`./dev bench`: runs the sections, prints what came out, and writes it as Markdown, JSON and SVG."""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bench import machine, plots
from bench.measure import Mismatch
from bench.report import Section, markdown
from bench.sections import foreign, history, in_flight, pay, profile, relay, start, workers
from bench.sections.history_tables import NoRoom
from bench.sizes import FULL, QUICK, Sizes
from bench.stage import Stage, staged

ROOT = Path(__file__).parents[1]
SCRATCH = ROOT / ".bench"
RESULTS = ROOT / "docs" / "performance"
SECTIONS: dict[str, Callable[[Stage, Sizes], Awaitable[Sequence[Section]]]] = {
    "pay": pay.measure,
    "profile": profile.measure,
    "in_flight": in_flight.measure,
    "workers": workers.measure,
    "history": history.measure,
    "start": start.measure,
    "foreign": foreign.measure,
    "relay": relay.measure,
}
_LOG_BYTES_SHOWN = 2000


async def bench(chosen: Sequence[str], sizes: Sizes, output: Path, kept: Sequence[Section]) -> list[str]:
    """Returns what went wrong. Then there are results of the other sections, but none to be kept.

    `kept` are sections of an earlier run, which those of this one replace.
    """
    about = await machine.describe()
    measured = f"{about['commit']} on {about['date']}"
    found: list[Section] = []
    faults: list[str] = []
    for name in chosen:
        print(f"{name} …", flush=True)
        try:
            found += [replace(each, measured=measured) for each in await _section(name, sizes)]
        except (Mismatch, NoRoom) as fault:
            faults.append(f"{name}: {fault}")
    found = _together(kept, found)
    text = markdown(about, found)
    print("\n" + text)
    _write(SCRATCH if faults else output, text, about, sizes, found)
    return faults


def _together(kept: Sequence[Section], found: Sequence[Section]) -> list[Section]:
    """Each in its place; new ones at the end."""
    by_name = {each.name: each for each in (*kept, *found)}
    return list(by_name.values())


def _read(output: Path) -> list[Section]:
    data = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return [Section.read(each) for each in data["sections"].values()]


async def _section(name: str, sizes: Sizes) -> Sequence[Section]:
    """Each on a stage of its own, so that none meets what another has left behind."""
    with tempfile.TemporaryDirectory(prefix="payorder-bench-") as folder:
        path = Path(folder)
        async with staged(path) as stage:
            try:
                return await SECTIONS[name](stage, sizes)
            except BaseException:
                _show_logs(path)
                raise


def _show_logs(folder: Path) -> None:
    for log in sorted(folder.glob("*.log")):
        print(f"--- {log.name}", log.read_text(encoding="utf-8")[-_LOG_BYTES_SHOWN:], sep="\n", file=sys.stderr)


def _write(output: Path, text: str, about: dict[str, str], sizes: Sizes, found: Sequence[Section]) -> None:
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.md").write_text(text, encoding="utf-8")
    data = {"machine": about, "sizes": asdict(sizes), "sections": {each.name: asdict(each) for each in found}}
    (output / "results.json").write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    plots.draw({each.name: each.data for each in found}, output)
    print(f"written to {output}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short runs, to see that everything works")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="some sections")
    parser.add_argument(
        "--update", action="store_true", help="keep the other sections of docs/performance as they were measured"
    )
    parser.add_argument("--seconds", type=float, help="of each run")
    parser.add_argument("--repeats", type=int, help="runs of each kind")
    parser.add_argument("--orders", type=int, help="in the larger history")
    parser.add_argument("--samples", type=int, help="times of each kind that are compared")
    parser.add_argument("--output", type=Path, help="folder; docs/performance for a full run, else .bench")
    return parser.parse_args()


def main() -> None:
    given = _arguments()
    wanted = {
        "seconds": given.seconds,
        "repeats": given.repeats,
        "history_many": given.orders,
        "samples": given.samples,
    }
    wanted = {name: value for name, value in wanted.items() if value is not None}
    sizes = replace(QUICK if given.quick else FULL, **wanted)
    is_full = sizes == FULL and list(given.only) == list(SECTIONS)
    output = given.output or (RESULTS if is_full or given.update else SCRATCH)
    faults = asyncio.run(bench(given.only, sizes, output, _read(output) if given.update else []))
    if faults:
        sys.exit("\n".join(f"bench: {fault}" for fault in faults))


if __name__ == "__main__":
    main()
