"""The figures as SVG, the same bytes for the same figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_OURS, _OTHERS = "#1f6f8b", "#b8c4c9"
_PARTS = {"server": "#1f6f8b", "postgres": "#99a8b2", "envoy": "#e1b07e"}


def draw(data: Mapping[str, Any], folder: Path) -> None:
    """One file for each plot of which there is data, by the names of the sections."""
    mpl.rcParams["svg.hashsalt"] = "payorder"
    mpl.rcParams["svg.fonttype"] = "none"
    plots = {"saturated": {"cpu": _cpu, "throughput": _throughput}, "history": {"history": _history}}
    for section, drawings in plots.items():
        for name, drawing in drawings.items():
            if section in data:
                _save(drawing, data[section], folder / f"{name}.svg")


def _save(drawing: Any, data: Any, path: Path) -> None:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    drawing(axes, data)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def _cpu(axes: Axes, data: Mapping[str, Any]) -> None:
    names, left = list(data), [0.0] * len(data)
    for whose, color in _PARTS.items():
        widths = [data[name]["cpu_ms"].get(whose, 0.0) for name in names]
        axes.barh(names, widths, left=left, color=color, label=whose)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.legend(frameon=False)
    axes.set_xlabel("milliseconds of processor time for each PayOrder")


def _throughput(axes: Axes, data: Mapping[str, Any]) -> None:
    names = list(data)
    colors = [_OURS if name.startswith("payorder") else _OTHERS for name in names]
    bars = axes.barh(names, [data[name]["per_second"] for name in names], color=colors)
    axes.bar_label(bars, fmt="%.0f", padding=3)
    axes.invert_yaxis()
    axes.set_xlabel("PayOrder calls a second at the limit, on the same machine as their load")


def _history(axes: Axes, data: Mapping[str, Any]) -> None:
    names = list(data["ratios"])
    bars = axes.barh(names, [data["ratios"][name] for name in names], color=_OURS)
    axes.bar_label(bars, fmt="%.2fx", padding=3)
    axes.axvline(1, color=_OTHERS)
    axes.invert_yaxis()
    axes.set_xlabel(f"time with {data['many']:,} orders in the tables against {data['few']:,}")
