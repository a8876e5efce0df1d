"""What run folders say, as numbers: learning curves with 95% intervals, and parameter studies.

A run of N independent learners is told by their mean and its normal interval; several runs of the
same settings by the interquartile mean over runs and its bootstrap interval, as in Agarwal et al.
(2021), "Deep RL at the Edge of the Statistical Precipice". Knows only what run folders say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from rlplay import config
from rlplay.core import Array, Mistake, nearest
from rlplay.run import Run, flatten, read_lines

MAX_POINTS = 1000  # of a curve over several runs that were not logged at the same moments
RESAMPLES = 2000  # of the bootstrap
BY_EPISODE = {"rollout/ep_score_mean": "score", "rollout/ep_len_mean": "length"}

Settings = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Curve:
    """A metric against x, over all runs of the same settings."""

    x: Array  # [T] float64, rising
    mean: Array  # [T] float64; of four runs or more their interquartile mean
    low: Array  # [T] float64, lower end of the 95% interval; NaN where none is known
    high: Array  # [T] float64
    num_runs: int = 1
    """Independent runs behind it: run folders, or the learners side by side in a single one."""
    about: str = ""
    """What the line and its band are; empty for a single run without a band."""


def settings(run: Run) -> Settings:
    """Return the settings of a run as they are written, also where they are of an older version."""
    return config.read(str(run.folder / "config.yaml"))[1]


def logged(run: Run) -> dict[str, Array]:
    """Return the metrics of a run by name, as [T, 2] float64: agent steps, and value. What is known
    by episode, [E, 2] from episode 1, has no slash in its name. Each may have a companion
    `<name>_ci`, half the width of its 95% interval."""
    tables: dict[str, dict[float, float]] = {}
    file = run.folder / "metrics.jsonl"
    for line in read_lines(file) if file.exists() else []:
        for name, value in line.items():
            if name != "step" and isinstance(value, int | float) and math.isfinite(value):
                tables.setdefault(name, {})[line["step"]] = value  # the last word of a step counts
    series = {name: np.array(sorted(table.items()), float) for name, table in tables.items()}
    file = run.folder / "episodes.npz"
    if file.exists():
        num_envs = settings(run)["env"]["num_envs"]
        with np.load(file) as arrays:
            for name in arrays.files:
                count, total, squares = arrays[name].T
                whole = (count == num_envs) & np.isfinite(total)  # the slow envs count as the quick
                episode = np.flatnonzero(whole)
                mean = total[whole] / num_envs
                series[name] = np.stack([episode + 1, mean], 1)
                if num_envs > 1:
                    variance = np.maximum(squares[whole] / num_envs - mean**2, 0)
                    half = 1.96 * np.sqrt(variance / (num_envs - 1))
                    series[f"{name}_ci"] = np.stack([episode + 1, half], 1)
    return {name: table for name, table in series.items() if len(table)}


def series(run: Run, metric: str, x: str) -> tuple[Array, Array, Array]:
    """Return x [T], the mean [T] and half the width of its interval [T], NaN where it has none.
    Raises Mistake where the run does not know the metric, or not against this x."""
    known = logged(run)
    if x == "episodes" and "/" in metric:
        metric = BY_EPISODE.get(metric, metric.rpartition("/")[2])
    if metric not in known:
        names = sorted(name for name in known if not name.endswith("_ci"))
        if not names:
            raise Mistake(f"{run.name} has logged nothing yet; plot it when it has")
        if x == "episodes":
            names = [name for name in names if "/" not in name]
            raise Mistake(
                f"{run.name} does not know {metric!r} by episode, but"
                f" {', '.join(names) or 'nothing'}; leave --x out, or set it to steps"
            )
        hint = nearest(metric, names) or f"; it has {', '.join(names)}"
        raise Mistake(f"{run.name} has no metric {metric!r}{hint}")
    at, mean = known[metric].T
    half = np.full_like(mean, np.nan)
    if f"{metric}_ci" in known:
        places = dict(known[f"{metric}_ci"].tolist())
        half = np.array([places.get(step, math.nan) for step in at.tolist()])
    if "/" not in metric:
        if x not in ("episodes", "value", ""):
            raise Mistake(f"{metric!r} is known by episode only; leave --x out")
    elif x == "steps_per_env":
        at = at / settings(run)["env"]["num_envs"]
    elif x == "seconds":
        if "time/time_elapsed" not in known:
            raise Mistake(f"{run.name} has not logged its time; set --x steps")
        at = np.interp(at, *known["time/time_elapsed"].T)
    return at, mean, half


def curve(
    runs: Sequence[Run], metric: str, x: str = "steps", first: int = 0, smooth: int = 1
) -> Curve:
    """Return what runs of the same settings say of `metric`: of one run, its numbers as logged; of
    several, what they come to on a common grid, as far as the shortest goes."""
    found = []
    for run in runs:
        at, mean, half = series(run, metric, x)
        end = first or len(at)
        found.append((at[:end], moving(mean[:end], smooth), moving(half[:end], smooth)))
    if len(found) > 1:
        return together([(at, mean) for at, mean, _ in found])
    at, mean, half = found[0]
    num_runs, about = 1, ""
    if np.isfinite(half).any():
        num_runs = settings(runs[0])["env"]["num_envs"]
        about = f"mean of {num_runs:,} runs, 95% interval"
    return Curve(at, mean, mean - half, mean + half, num_runs, about)


def together(found: Sequence[tuple[Array, Array]]) -> Curve:
    """Return the interquartile mean over n runs, each x [T_i] and y [T_i], and the 95% percentile
    bootstrap interval of it, at each x of a common grid."""
    low, high = max(at[0] for at, _ in found), min(at[-1] for at, _ in found)
    grid = np.unique(np.concatenate([at for at, _ in found]))
    grid = grid[(low <= grid) & (grid <= high)]
    if not len(grid):
        raise Mistake("these runs were never logged at the same time; train them further")
    if len(grid) > max(MAX_POINTS, *(len(at) for at, _ in found)):
        grid = np.linspace(low, high, MAX_POINTS)
    values = np.stack([np.interp(grid, at, mean) for at, mean in found])  # [n, T]
    n = len(values)
    name = "IQM" if n >= 4 else "mean"  # of fewer, a quarter rounded down is none
    about = f"{name} of {n} runs, 95% bootstrap interval"
    return Curve(grid, interquartile_mean(values), *bootstrap(values), n, about)


def interquartile_mean(values: Array) -> Array:
    """Return the mean of the middle half of [n, T] over its first axis, as [T]: a quarter, rounded
    down, is dropped at each end."""
    n = len(values)
    return np.sort(values, axis=0)[n // 4 : n - n // 4].mean(axis=0)


def bootstrap(values: Array) -> tuple[Array, Array]:
    """Return the 95% percentile bootstrap interval of the interquartile mean of [n, T] over its
    first axis, as two [T]; same values, same interval.

    What is drawn are ranks, the same for every x: the middle half of a resample is then the same
    rows of the sorted values everywhere, and all resamples are one product of matrices."""
    n = len(values)
    ranks = np.sort(np.random.default_rng(0).integers(n, size=(RESAMPLES, n)), axis=1)
    middle = ranks[:, n // 4 : n - n // 4]
    weight = (middle[:, :, None] == np.arange(n)).mean(axis=1)  # [RESAMPLES, n]
    low, high = np.quantile(weight @ np.sort(values, axis=0), [0.025, 0.975], axis=0)
    return low, high


def moving(values: Array, span: int) -> Array:
    """Return the mean of `span` neighbours of each of [T], of fewer at both ends."""
    if span == 1 or not len(values):
        return values
    window, reach = np.ones(span), slice(span // 2, span // 2 + len(values))
    return np.convolve(values, window)[reach] / np.convolve(np.ones(len(values)), window)[reach]


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return runs by label: together those that differ in the seed only. A label is the agent's
    name and, where that is not enough, the settings that tell the groups apart."""
    kinds: dict[str, tuple[Settings, list[Run]]] = {}
    for run in runs:
        flat = dict(flatten(settings(run)))
        flat.pop("seed", None)
        kinds.setdefault(repr(sorted(flat.items())), (flat, []))[1].append(run)
    labels = apart([flat for flat, _ in kinds.values()])
    return {label: found for label, (_, found) in zip(labels, kinds.values(), strict=True)}


def apart(kinds: Sequence[Settings]) -> list[str]:
    """Return a label for each of some different flat settings."""
    labels = [str(flat.get("agent.name", flat.get("task.name", ""))) for flat in kinds]
    names = list(dict.fromkeys(chain.from_iterable(kinds)))
    worlds = [name for name in names if name in ("env.name", "env.id", "env.game", "data.name")]
    names.sort(key=lambda name: (name not in worlds, not name.startswith(("agent.", "task."))))
    for name in names:
        words = [word(name, flat[name]) if name in flat else "" for flat in kinds]
        among: dict[str, set[str]] = {}
        for label, said in zip(labels, words, strict=True):
            among.setdefault(label, set()).add(said)
        labels = [
            f"{label} {said}".strip() if len(among[label]) > 1 else label
            for label, said in zip(labels, words, strict=True)
        ]
    return labels


def word(name: str, value: Any) -> str:
    """Return a setting as a label tells it: "n_step=3", "double", "no double", "breakout"."""
    short = name.rpartition(".")[2]
    if isinstance(value, bool) or value == "":
        return short if value else f"no {short}"
    if isinstance(value, str):
        return value
    return f"{short}={value:g}" if isinstance(value, float) else f"{short}={value}"


def study(
    points: Mapping[str, Sequence[tuple[float, Sequence[Run]]]], metric: str, first: int = 0
) -> dict[str, Curve]:
    """Return by label what the mean of `metric` over the first points, 0 for all, comes to for each
    value of a setting (value, its runs), as in Sutton & Barto (2018), figure 2.6.

    The interval of one run with N learners is the mean of the intervals of its points: as wide as
    it can be, for learners that keep their luck from one point to the next."""
    curves = {}
    for label, pairs in points.items():
        found = []
        for value, runs in sorted(pairs, key=lambda pair: pair[0]):
            means = []
            for run in runs:
                _, mean, half = (column[: first or None] for column in series(run, metric, ""))
                if len(mean) < first:
                    raise Mistake(
                        f"{run.name} has {len(mean)} of the first {first} points of {metric}"
                        " from all its envs; train it longer with --num-steps"
                    )
                means.append((np.array([value]), np.array([mean.mean()]), half.mean()))
            if len(means) > 1:
                found.append(together([(at, mean) for at, mean, _ in means]))
            else:
                at, mean, half = means[0]
                num = settings(runs[0])["env"]["num_envs"] if np.isfinite(half) else 1
                about = f"mean of {num:,} runs, 95% interval" if num > 1 else ""
                found.append(Curve(at, mean, mean - half, mean + half, num, about))
        at, mean, low, high = (
            np.concatenate([getattr(one, name) for one in found])
            for name in ("x", "mean", "low", "high")
        )
        curves[label] = Curve(at, mean, low, high, found[0].num_runs, found[0].about)
    return curves
