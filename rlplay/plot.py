"""Run folders become pictures: learning curves in their 95% intervals, and parameter studies.

Which numbers are drawn is said in curves.py. Here is how they look: one style, colours that
everyone tells apart, and the same bytes for the same numbers. It does not use pyplot, which is
global and looks for a screen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from rlplay.core import Mistake, Range
from rlplay.curves import Curve, curve, group, logged, settings, study
from rlplay.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "rollout/reward": "Average reward",
    "rollout/optimal_action": "Optimal action",
    "rollout/cumulative_regret": "Cumulative regret",
    "rollout/ep_score_mean": "Score, mean of recent episodes",
    "rollout/ep_rew_mean": "Reward as learned from, mean of recent episodes",
    "rollout/ep_len_mean": "Agent steps an episode, mean of recent ones",
    "eval/mean_reward": "Score in evaluation",
    "train/rms_error": "RMS error",
    "train/residual": "Residual",
    "train/error_bound": "Bound of the error",
    "train/loss": "Loss in training",
    "validation/accuracy": "Accuracy in validation",
    "validation/cross_entropy": "Cross-entropy in validation, nats",
    "validation/squared_error": "Squared error in validation, a pixel",
    "validation/goal": "Validation",
    "rms_error": "RMS error",
    "score": "Score of an episode",
    "length": "Agent steps in an episode",
}
X_TITLES = {
    "steps": "agent steps",
    "steps_per_env": "agent steps of each run",
    "episodes": "episode",
    "seconds": "training, seconds",
    "value": "value of the setting",
}
DEFAULTS = (
    ("rollout/reward", "rollout/optimal_action", "rollout/cumulative_regret"),
    ("train/rms_error",),
    ("train/residual", "train/error_bound"),
    ("rollout/ep_score_mean", "eval/mean_reward"),
    ("validation/accuracy", "train/loss"),
    ("validation/goal", "train/loss"),
)
"""The first of these groups that all runs have something of is what they are drawn by."""
ERRORS = ("train/residual", "train/error_bound")  # drawn on a logarithmic axis
SHARES = ("rollout/optimal_action",)  # drawn as 0 to 100%

INK, FAINT, RULE = "#333333", "#767676", "#e4e4e4"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
"""Told apart by everyone: Okabe and Ito (2008), less their yellow."""
DASHES = (0, (4, 2.5))
STYLE: Any = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is the same everywhere
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#b0b0b0",
    "axes.labelcolor": FAINT,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": "#b0b0b0",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "rlplay",  # else its ids differ from one drawing to the next
}


@dataclass(frozen=True)
class Config:
    """What a plot of runs shows."""

    metrics: tuple[str, ...] = ()
    """What to draw, a panel for each: names as in the log, such as rollout/reward, or, without a
    slash, of what is known by episode, such as score; empty for what suits the runs."""
    x: Literal["", "steps", "steps_per_env", "episodes", "seconds", "value"] = ""
    """What to draw it against; value is that of the setting a study varies; empty for what suits
    the metric."""
    title: str = ""
    """Written above; empty for the world."""
    x_title: str = ""
    """Written below the x axis; empty for what x is."""
    first: Annotated[int, Range(0)] = 0
    """Only so many points from the beginning, of which a study takes the mean; 0 for all."""
    smooth: Annotated[int, Range(1)] = 1
    """Neighbouring points that a moving average spans."""
    low: float | None = None
    """Lower end of the y axis."""
    high: float | None = None
    """Upper end of the y axis."""
    log_x: bool = False
    """A logarithmic x axis: of powers of ten, or of two for the values of a setting."""


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_title: str
    curves: Mapping[str, Curve]
    """By label."""
    bounds: Mapping[str, Curve] = field(default_factory=dict)
    """What theory promises not to exceed, by the label of whose curve it is about."""
    share: bool = False
    """True where y goes from 0 to 1 and is written as percent."""
    points: bool = False
    """True where x are a few values of a setting, each with its error bar."""
    low: float | None = None
    high: float | None = None
    log_x: bool = False
    log_y: bool = False


def style() -> AbstractContextManager[None]:
    """Return the context in which the house draws and saves figures."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def draw(
    runs: Sequence[Run] | Mapping[str, Sequence[Run]],
    folder: Path,
    config: Config | None = None,
    name: str = "plot",
) -> list[Path]:
    """Draw runs, grouped by `curves.group` or as given by label; write `name`.png and `name`.svg
    into `folder` and return their paths. Raises Mistake where a run does not have what is asked."""
    config = config or Config()
    groups = runs if isinstance(runs, Mapping) else group(runs)
    if not groups:
        raise Mistake("there is nothing to plot; name a run, or `last`")
    metrics = config.metrics or defaults(list(groups.values()))
    panels = []
    for metric in metrics:
        x = config.x or usual_x(groups, metric)
        if x == "value":
            raise Mistake("only a study of several values of a setting has x: value; set --x steps")
        curves = {
            label: curve(members, metric, x, config.first, config.smooth)
            for label, members in groups.items()
        }
        bounds = {
            label: curve(members, f"{metric}_bound", x, config.first)
            for label, members in groups.items()
            if all(f"{metric}_bound" in logged(member) for member in members)
        }
        panels.append(
            Panel(
                TITLES.get(metric, metric),
                config.x_title or x_title(groups, x),
                curves,
                bounds,
                share=metric in SHARES,
                low=config.low,
                high=config.high,
                log_x=config.log_x,
                log_y=metric in ERRORS or bool(bounds),
            )
        )
    return save(figure(panels, config.title or world(groups)), folder, name)


def draw_study(
    points: Mapping[str, Sequence[tuple[float, Sequence[Run]]]],
    folder: Path,
    config: Config | None = None,
    name: str = "plot",
) -> list[Path]:
    """Draw by label what each value of a setting (value, its runs) came to; write `name`.png and
    `name`.svg into `folder` and return their paths. Raises Mistake as `draw` does."""
    config = config or Config()
    groups = {label: [run for _, runs in pairs for run in runs] for label, pairs in points.items()}
    panels = [
        Panel(
            TITLES.get(metric, metric) + over(metric, config.first),
            config.x_title or X_TITLES["value"],
            study(points, metric, config.first),
            share=metric in SHARES,
            points=True,
            low=config.low,
            high=config.high,
            log_x=config.log_x,
        )
        for metric in config.metrics or defaults(list(groups.values()))
    ]
    return save(figure(panels, config.title or world(groups)), folder, name)


def defaults(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return what to draw where nobody says. Raises Mistake where the runs have nothing of it in
    common."""
    known = [logged(run) for runs in groups for run in runs]
    for metrics in DEFAULTS:
        common = [metric for metric in metrics if all(metric in tables for tables in known)]
        curves = [m for m in common if all(len(tables[m]) > 1 for tables in known)]
        if common:
            return curves or common
    silent = [run.name for runs in groups for run in runs if not logged(run)]
    if silent:
        raise Mistake(f"{silent[0]} has logged nothing yet; plot it when it has")
    raise Mistake("these runs have no usual metric in common; name one with --metrics")


def over(metric: str, first: int) -> str:
    """Return what a study's mean is taken over, in words."""
    unit = "points of the log" if "/" in metric else "episodes"
    return f", mean of the first {first:,} {unit}" if first else ""


def usual_x(groups: Mapping[str, Sequence[Run]], metric: str) -> str:
    """Return what suits a metric: episodes where it is known by episode, and each run's own steps
    where several runs are side by side in one."""
    if "/" not in metric:
        return "episodes"
    runs = [run for members in groups.values() for run in members]
    return "steps_per_env" if any(f"{metric}_ci" in logged(run) for run in runs) else "steps"


def x_title(groups: Mapping[str, Sequence[Run]], x: str) -> str:
    """Return what is written below an x axis: perception tasks count updates, not agent steps."""
    runs = [run for members in groups.values() for run in members]
    return "updates" if x == "steps" and all(run.is_lesson for run in runs) else X_TITLES[x]


def world(groups: Mapping[str, Sequence[Run]]) -> str:
    """Return what runs are named after, <world>-<agent>-s<seed> or <data>-<task>-s<seed>, where it
    is the same for all."""
    learners = {run: settings(run) for members in groups.values() for run in members}
    names = {run.name.partition(f"-{(found.get('agent') or found['task'])['name']}-s")[0]
             for run, found in learners.items()}  # fmt: skip
    return names.pop() if len(names) == 1 else ""


def figure(panels: Sequence[Panel], title: str = "") -> Figure:
    """Draw panels side by side, three in a row, below one legend for all of them."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    labels = list(dict.fromkeys(label for panel in panels for label in panel.curves))
    inks = dict(zip(labels, colours(len(labels)), strict=True))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with style():
        size = (6.4, 4.2) if columns == 1 else (4.2 * columns, 3.5 * rows)
        drawn = Figure(size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.06))
        for i, panel in enumerate(panels):
            paint(drawn.add_subplot(rows, columns, i + 1), panel, inks)
        about = {label: said(panels, label) for label in labels}
        same = len(set(about.values())) == 1
        lines = [
            Line2D([], [], color=inks[k], label=k if same or not v else f"{k} ({v})")
            for k, v in about.items()
        ]
        if any(panel.bounds for panel in panels):
            lines.append(Line2D([], [], color=FAINT, linestyle=DASHES, label="theoretical bound"))
        widest = max(len(str(line.get_label())) for line in lines)
        columns = max(1, int(size[0] * 72 / (5.2 * widest + 40)))  # points
        head = {"size": 12, "weight": "bold"}
        drawn.legend(handles=lines, loc="outside upper left", ncols=columns, alignment="left",
                     title=title or None, title_fontproperties=head)  # fmt: skip
        if same and about[labels[0]]:
            drawn.supxlabel(about[labels[0]], x=0.99, ha="right", fontsize=7.5, color=FAINT)
    return drawn


def colours(count: int) -> list[Any]:
    """Return as many colours: the well-known ones, or, where they do not suffice, a gradient."""
    import matplotlib

    if count <= len(COLOURS):
        return list(COLOURS[:count])
    return list(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, count)))


def said(panels: Sequence[Panel], label: str) -> str:
    """Return what all lines of a label are, in words."""
    words = [panel.curves[label].about for panel in panels if label in panel.curves]
    return "; ".join(dict.fromkeys(filter(None, words)))


def paint(axes: Axes, panel: Panel, inks: Mapping[str, Any]) -> None:
    """Draw a panel."""
    axes.set_title(panel.title)
    axes.set_xlabel(panel.x_title)
    for label, line in panel.curves.items():
        ink = inks[label]
        if panel.points:
            half = np.nan_to_num([line.mean - line.low, line.high - line.mean])
            axes.errorbar(line.x, line.mean, half, color=ink, marker="o", markersize=3.5,
                          elinewidth=1)  # fmt: skip
            continue
        few, many = len(line.x) < 20, len(line.x) > 300
        axes.plot(line.x, line.mean, color=ink, marker="o" if few else "", markersize=3,
                  linewidth=1 if many else None)  # fmt: skip
        if np.isfinite(line.low).any():
            axes.fill_between(line.x, line.low, line.high, color=ink, alpha=0.18, linewidth=0)
    bounds = list(panel.bounds.items())
    same = all(np.array_equal(bound.mean, bounds[0][1].mean) for _, bound in bounds)
    for label, bound in bounds[: 1 if same else None]:
        ink = FAINT if same else inks[label]
        axes.plot(bound.x, bound.mean, color=ink, linestyle=DASHES, linewidth=1.2)
    scale(axes, panel)


def scale(axes: Axes, panel: Panel) -> None:
    """Set what the axes span and how their ticks are written."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

    if panel.log_x:
        base = 2 if panel.points else 10
        axes.set_xscale("log", base=base)
        axes.xaxis.set_major_locator(LogLocator(base, numticks=16))
        axes.xaxis.set_minor_locator(NullLocator())
    elif not panel.points:
        ends = [line.x[i] for line in panel.curves.values() for i in (0, -1)]
        low, high = min(0.0, *ends), max(ends)
        axes.set_xlim(low, high + 0.01 * (high - low or 1))  # whole markers at the end
    if panel.log_y and any((line.mean > 0).any() for line in panel.curves.values()):
        axes.set_yscale("log")
    axes.margins(y=0.06)
    if panel.share:
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_ylim(panel.low, panel.high)
    for axis, reach in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        if axis.get_scale() == "log" or max(map(abs, reach)) >= 10_000:
            axis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def short(value: float) -> str:
    """Return a number as ticks show it: 10k, 2.5M, 1/16, 1e-6."""
    if abs(value) >= 1000:
        power = min(int(np.log10(abs(value)) // 3), 3)
        return f"{value / 1000**power:g}{' kMG'[power]}".replace("-", "\N{MINUS SIGN}")
    if 0 < value < 1 and np.log2(value).is_integer():
        return f"1/{1 / value:.0f}"
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")


def save(drawn: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as `name`.png and `name`.svg, whole or not at all; return their paths. The
    same figure makes the same bytes. Raises Mistake where the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise Mistake(
            f"cannot write to {folder}: {error.strerror}; name another folder in --out"
        ) from error
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        file = BytesIO()
        with style():
            drawn.savefig(file, format=kind, dpi=150, metadata=metadata)
        paths.append(folder / f"{name}.{kind}")
        write(paths[-1], file.getvalue())
    return paths


def write(path: Path, content: bytes) -> None:
    """Write a file whole or, where the disk is full, not at all."""
    temporary = path.with_name(f".{path.name}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
