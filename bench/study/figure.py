"""The study's figure: forget quality against utility, what the methods end at and how they get there."""

from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from table import interval, is_reference

from tif.base.tables import writing

# Okabe and Ito's colours stay apart for colour-blind readers; each also has a sign of its own.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
}
QUALITY, UTILITY = "forget_quality.log10_pvalue", "model_utility"
COLUMNS = 5
LEVEL = 0.05  # of the test, as papers on TOFU read forget quality
WIDTH = 9.0


def draw(path: Path, table: pd.DataFrame, trajectories: pd.DataFrame) -> None:
    """Write the figure as PNG: above, where every variant ends; below, a small picture of each one's trajectory."""
    names = [name for name in dict.fromkeys(table["variant"]) if not is_reference(name)]
    lines = -(-len(names) // COLUMNS)
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, 4.2 + 1.7 * lines), layout="constrained", dpi=150)
        above, below = figure.subfigures(2, 1, height_ratios=[4.2, 1.7 * lines])
        ends(above.subplots(), table, names)
        grid = np.atleast_1d(below.subplots(lines, COLUMNS, sharex=True, sharey=True)).reshape(lines, COLUMNS)
        for number, axes in enumerate(grid.flat):
            if number < len(names):
                path_of(axes, names[number], look(number), trajectories)
            else:
                axes.set_visible(False)
        below.supxlabel("retain probability (one dot an epoch, a sign at the end)", fontsize=9)
        below.supylabel("log10 forget quality", fontsize=9)
        with writing(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})


def look(number: int) -> dict:
    """Colour and sign of variant `number`; open signs when the colours have been used up."""
    color, again = COLORS[number % len(COLORS)], number // len(COLORS)
    return {
        "color": color,
        "marker": MARKERS[(number + 3 * again) % len(MARKERS)],
        "markerfacecolor": "white" if again else color,
    }


def ends(axes: Axes, table: pd.DataFrame, names: list[str]) -> None:
    """Final model utility against final forget quality: means over seeds with intervals, and the two references."""
    handles = []
    for number, name in enumerate(names):
        x, y = (interval(table.loc[table["variant"] == name, column]) for column in (UTILITY, QUALITY))
        axes.plot(x[1:], (y[0], y[0]), (x[0], x[0]), y[1:], color=look(number)["color"], linewidth=0.8, alpha=0.6)
        axes.plot(x[0], y[0], linestyle="", markersize=7, **look(number))
        handles.append(Line2D([], [], linestyle="", label=name, **look(number)))
    for name, marker in (("target", "$T$"), ("retain", "$R$")):
        rows = table[table["variant"] == name]
        at = rows[UTILITY].mean(), rows[QUALITY].mean()
        axes.plot(*at, linestyle="", marker=marker, color="#4b5563", markersize=9)
        handles.append(Line2D([], [], linestyle="", marker=marker, color="#4b5563", label=f"{name} model"))
    scale(axes)
    label = {"xycoords": ("axes fraction", "data"), "xytext": (0, -10), "textcoords": "offset points", "fontsize": 8}
    axes.annotate(f"p = {LEVEL}", (0.005, np.log10(LEVEL)), color="#4b5563", **label)
    axes.set_xlabel("model utility")
    axes.set_ylabel("log10 forget quality (up is better)")
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1.0, 0.5))


def path_of(axes: Axes, name: str, style: dict, trajectories: pd.DataFrame) -> None:
    """One variant's trajectory (mean over seeds; seeds thin) before those of all others in grey."""
    for other, rows in trajectories.groupby("variant", sort=False):
        mean = rows.groupby("epoch")[["retain_probability", "forget_quality_log10"]].mean()
        if other == name:
            axes.plot(*mean.to_numpy().T, color=style["color"], marker=".", markersize=4, linewidth=1.4, zorder=3)
            for _, seed in rows.groupby("seed"):
                points = seed[["retain_probability", "forget_quality_log10"]].to_numpy().T
                axes.plot(*points, color=style["color"], linewidth=0.6, alpha=0.5, zorder=2)
        else:
            axes.plot(*mean.to_numpy().T, color="#d1d5db", linewidth=0.7, zorder=1)
    own = trajectories[trajectories["variant"] == name]
    last = own[own["epoch"] == own["epoch"].max()]
    end = last["retain_probability"].mean(), last["forget_quality_log10"].mean()
    axes.plot(*end, linestyle="", markersize=6, zorder=4, **style)
    axes.set_title(name, fontsize=9, pad=2)
    scale(axes)
    axes.tick_params(labelsize=7)


def scale(axes: Axes) -> None:
    """log10 p down to -3, below in its logarithm, as methods that destroy a model end far below; a line at p = .05."""
    axes.set_yscale("symlog", linthresh=3, linscale=1.5)
    ticks = [0, -1, -2, -3, -10, -30, -100, -300]
    low, high = axes.get_ylim()
    low = min(low, -3)
    axes.set_ylim(top=min(high, 0.3))  # log10 p is at most 0, though intervals of its mean go on
    axes.set_yticks([tick for tick in ticks if tick >= low], minor=False)
    axes.set_yticks([], minor=True)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.axhline(np.log10(LEVEL), color="#6b7280", linestyle=(0, (4, 3)), linewidth=0.8, zorder=0)
