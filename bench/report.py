"""What a section hands over, and how it looks in a terminal, in Markdown and in JSON."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """`figure` None: not measured, for the reason in `remark`."""

    what: str
    figure: float | None
    comparison: Literal["at most", "at least"]
    goal: float
    unit: str
    remark: str = ""

    @property
    def is_met(self) -> bool | None:
        if self.figure is None:
            return None
        return self.figure <= self.goal if self.comparison == "at most" else self.figure >= self.goal

    def row(self) -> list[str]:
        shown = "not measured" if self.figure is None else f"{_number(self.figure)}{self.unit}"
        verdict = {True: "met", False: "**not met**", None: "-"}[self.is_met]
        return [self.what, shown, f"{self.comparison} {_number(self.goal)}{self.unit}", verdict, self.remark]


@dataclass(frozen=True, slots=True)
class Section:
    """`about` says how it was measured, the processor's latency included; `data` goes into the JSON as it is."""

    name: str
    title: str
    about: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    goals: Sequence[Goal] = ()
    data: Any = field(default_factory=dict)
    # At which commit, and when.
    measured: str = ""

    @classmethod
    def read(cls, data: dict[str, Any]) -> "Section":
        """As it was written to JSON."""
        return cls(**{**data, "goals": [Goal(**goal) for goal in data["goals"]]})


def markdown(machine: dict[str, str], sections: Sequence[Section]) -> str:
    goals = [goal.row() for section in sections for goal in section.goals]
    parts = [
        "# Results of `./dev bench`",
        "Made by the run, not by hand. [What it means and how to repeat it](../performance.md).",
        _table(("machine", ""), machine.items()),
        "## Goals",
        _table(("figure", "measured", "goal", "", "remark"), goals),
    ]
    for section in sections:
        about = f"{section.about} Measured at {section.measured}."
        parts += [f"## {section.title}", about, _table(section.columns, section.rows)]
    return "\n\n".join(parts) + "\n"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned, so that it reads the same in a terminal."""
    rows = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.2f}"
