"""Pictures of the report: SVG text to put inside the page, the same bytes for the same numbers."""

import io
import re

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tif.report.epochs import LEVEL, Epoch, best_epoch
from tif.report.weights import MeanWeight

# Okabe and Ito's colours stay apart for colour-blind readers; the dashes do so in grey print.
LINES = {
    "target": {"color": "#d55e00", "linestyle": "--"},
    "retain": {"color": "#0072b2", "linestyle": ":"},
    "unlearned": {"color": "#009e73", "linestyle": "-"},
}
_STYLE = {
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e6ea",
    "axes.edgecolor": "#6b7280",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
_SHOWN_RATIOS = (1e-6, 1e6)  # ratios beyond are drawn at the edge, or one would squeeze all others together


def tradeoff(epochs: list[Epoch]) -> str:
    """Forget quality (log10) against retain probability, one dot an epoch; the best and the last are marked."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(6.2, 4.2), layout="constrained")
        axes = figure.subplots()
        x = [epoch.retain_probability for epoch in epochs]
        y = [epoch.forget_quality_log10 for epoch in epochs]
        axes.plot(x, y, color="#6b7280", linewidth=1, marker="o", markersize=4, zorder=2)
        best, last = best_epoch(epochs), epochs[-1]
        _mark(axes, epochs[0], f"epoch {epochs[0].epoch}", "o", LINES["target"]["color"], (0, -18))
        if best == last:
            _mark(axes, last, f"best and last: epoch {last.epoch}", "*", LINES["unlearned"]["color"], (0, 10))
        else:
            _mark(axes, best, f"best: epoch {best.epoch}", "*", LINES["unlearned"]["color"], (0, 10))
            _mark(axes, last, f"last: epoch {last.epoch}", "s", "#1c2430", (0, -18))
        _level(axes)
        axes.margins(x=0.18, y=0.14)
        axes.set_xlabel("mean probability of the retain answers (utility, right is better)")
        axes.set_ylabel("log10 forget quality (up is better)")
        return _svg(figure, "tradeoff", "Forget quality against retain probability, one point per epoch")


def epochs_picture(epochs: list[Epoch]) -> str:
    """Over the epochs: forget quality (log10) above, mean answer probability on forget and retain samples below."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(6.2, 4.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        x = [epoch.epoch for epoch in epochs]
        above.plot(x, [e.forget_quality_log10 for e in epochs], marker="o", markersize=4, **LINES["unlearned"])
        _level(above)
        above.set_ylabel("log10 forget quality")
        retain, forget = [e.retain_probability for e in epochs], [e.forget_probability for e in epochs]
        below.plot(x, retain, color="#0072b2", marker="o", markersize=4, label="retain answers")
        below.plot(x, forget, color="#d55e00", marker="s", markersize=4, label="forget answers", linestyle="--")
        below.set_ylim(-0.03, 1.03)
        below.set_ylabel("mean probability")
        below.set_xlabel("epochs of unlearning")
        below.xaxis.get_major_locator().set_params(integer=True)
        below.legend(loc="best")
        return _svg(figure, "epochs", "Forget quality and mean probabilities over the epochs")


def truth_ratios(ratios: dict[str, np.ndarray]) -> str:
    """Cumulative distributions of the truth ratio on the forget set; the gap between two is the KS statistic."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(6.2, 4.2), layout="constrained")
        axes = figure.subplots()
        for model, values in ratios.items():
            x = np.sort(np.clip(values, *_SHOWN_RATIOS))
            share = np.arange(1, len(x) + 1) / len(x)
            axes.step(
                np.concatenate([x[:1], x]), np.concatenate([[0], share]), where="post", label=model, **LINES[model]
            )
        axes.set_xscale("log")
        axes.axvline(1.0, color="#6b7280", linewidth=0.8)
        axes.set_ylim(-0.02, 1.02)
        axes.set_xlabel("truth ratio (below 1: the true answer is likelier than the wrong ones)")
        axes.set_ylabel("share of forget samples at or below")
        axes.legend(loc="best")
        return _svg(figure, "truth-ratios", "Cumulative distributions of the truth ratios of the three models")


def weights_picture(epochs: list[MeanWeight]) -> str:
    """Mean learned weight of unwanted tokens and of the rest over the epochs."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = Figure(figsize=(6.2, 3.4), layout="constrained")
        axes = figure.subplots()
        x = [epoch.epoch for epoch in epochs]
        # None becomes NaN, of which nothing is drawn
        unwanted, general = (np.array(v, float) for v in zip(*((e.unwanted, e.general) for e in epochs)))
        axes.plot(x, unwanted, color="#d55e00", marker="o", markersize=4, label="unwanted tokens (UW)")
        axes.plot(x, general, color="#0072b2", marker="s", markersize=4, label="all other tokens", linestyle="--")
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("mean weight")
        axes.set_xlabel("epochs of unlearning")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.legend(loc="best")
        return _svg(figure, "weights", "Mean learned weight of unwanted tokens and of the others over the epochs")


def _mark(axes: Axes, epoch: Epoch, label: str, marker: str, color: str, offset: tuple[int, int]) -> None:
    at = (epoch.retain_probability, epoch.forget_quality_log10)
    axes.plot(*at, marker=marker, markersize=12 if marker == "*" else 8, color=color, zorder=3)
    axes.annotate(label, at, xytext=offset, textcoords="offset points", ha="center", zorder=4)


def _level(axes: Axes) -> None:
    axes.axhline(np.log10(LEVEL), color="#6b7280", linestyle=(0, (4, 3)), linewidth=0.9)
    axes.annotate(
        f"p = {LEVEL}", (1, np.log10(LEVEL)), xycoords=("axes fraction", "data"), xytext=(0, -11),
        textcoords="offset points", ha="right", color="#4b5563", fontsize=8,
    )  # fmt: skip


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element of no fixed size, without metadata and addresses; every id starts with `name`."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    view = re.search(r'viewBox="[^"]*"', text).group()
    inner = text[text.index(">", text.index("<svg")) + 1 :].strip()
    # the pictures share one page, and ids are unique in a page
    inner = re.sub(r'\bid="', f'id="{name}-', inner).replace("url(#", f"url(#{name}-")
    inner = inner.replace('xlink:href="#', f'href="#{name}-')
    return f'<svg {view} role="img" aria-label="{label}">\n{inner}'
