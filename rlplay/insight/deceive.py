"""How well a network does against the size of an attack, as curves, numbers and examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from rlplay import plot
from rlplay.core import Array
from rlplay.curves import Curve
from rlplay.insight.adversarial import (
    Attack,
    Point,
    accuracy,
    added,
    episode_score,
    fast_gradient_sign,
    noise,
    noise_patch,
    pasted,
    patch,
    universal,
)
from rlplay.insight.exhibits import write
from rlplay.insight.page import Exhibit, Figure
from rlplay.insight.subject import Subject
from rlplay.palette import number
from rlplay.perception import gallery

Measure = Callable[[Attack], tuple[float, float, float]]
"""From an attack to how well it does then: the mean, and its 95% interval."""
FAST, FOR_ALL, CHANCE = "fast gradient sign", "one change for all pictures", "noise of that size"
PATCH, SQUARE = "patch", "patch of noise"
TASK, AGENT = (0, 8, 16, 32, 48, 64), (0, 1, 2, 4, 8, 16)  # epsilons, where none are set
APART = 1000  # seeds between the episode that attacks are prepared on and those they are tried on


def deceived(
    subject: Subject,
    folder: Path,
    index: Sequence[int],
    epsilons: Sequence[int],  # empty for what suits
    patches: Sequence[float],
    num_episodes: int,
    max_steps: int,
    seed: int,
    announce: Callable[[str], None],
) -> Exhibit:
    """Measure, draw and write down how well a network does under attacks of several sizes."""
    assert subject.others is not None
    is_agent = subject.player is not None
    epsilons = sorted({0, *(epsilons or (AGENT if is_agent else TASK))})
    shortest = min(subject.pictures.shape[2:])
    sides = sorted({max(1, round(share * shortest)) for share in patches if share})
    unit = "score" if is_agent else "accuracy"
    about = (
        f"mean score of {num_episodes} episodes of at most {max_steps} agent steps"
        if is_agent
        else f"share of {len(subject.pictures):,} test pictures told right"
    )
    changes = {
        epsilon: universal(subject.scores, subject.device, subject.others, epsilon, seed)
        for epsilon in epsilons
    }
    squares = {
        side: patch(subject.scores, subject.device, subject.others, side, seed) for side in sides
    }
    with measuring(subject, num_episodes, max_steps, seed + APART) as measure:
        clean = Point(0, *measure(lambda pictures, right: pictures))
        moved: dict[str, list[Point]] = {name: [clean] for name in (FAST, FOR_ALL, CHANCE)}
        for epsilon in epsilons[1:]:
            attacks = {
                FAST: fast_gradient_sign(subject.scores, subject.device, epsilon),
                FOR_ALL: added(changes[epsilon]),
                CHANCE: noise(epsilon, seed),
            }
            for name, attack in attacks.items():
                moved[name].append(Point(epsilon, *measure(attack)))
            announce(f"{unit} at epsilon {epsilon}: {latest(moved, unit)}")
        covered: dict[str, list[Point]] = {name: [clean] for name in (PATCH, SQUARE)}
        for side, square in squares.items():
            chance = noise_patch(subject.others, side, seed)
            for name, one in ((PATCH, square), (SQUARE, chance)):
                covered[name].append(Point(side, *measure(pasted(one, seed))))
            announce(f"{unit} with a patch of {side} pixels: {latest(covered, unit)}")
    curves(folder, unit, moved, covered if sides else {})
    report = {
        "of": subject.about,
        "measured": about,
        "epsilon": as_json(moved),
        "patch": as_json(covered if sides else {}),
    }
    (folder / "adversarial.json").write_text(json.dumps(report, indent=2) + "\n")
    shown = epsilons[len(epsilons) // 2]
    largest = squares[sides[-1]] if sides else None
    examples(subject, folder, index, shown, changes[shown], largest, seed)
    begin = "Episodes begin alike under all attacks, and every observation is attacked. " * is_agent
    return Exhibit(
        "How easily it is deceived",
        "Every pixel is moved by epsilon of 255 grey levels: each picture's own way, by the sign"
        " of its gradient (Goodfellow et al. 2015); one and the same way for all pictures"
        " (Moosavi-Dezfooli et al. 2017), learned from pictures that are not tested; or up and"
        " down at random, which is the control. A patch (Brown et al. 2017) may look as it likes,"
        f" but lies anywhere; its control is a patch of noise. {begin}Shown is the {about}, with"
        " its 95% interval.",
        [
            Figure("adversarial.png", f"The {unit} against the size of the attack."),
            Figure("examples.png", f"Attacks of epsilon {shown}, and below what it says of them."
                   " Of its change to the newest moment red is up and blue is down."),
        ],
        table(moved, "epsilon", unit) + (table(covered, "patch", unit) if sides else []),
    )  # fmt: skip


@contextmanager
def measuring(subject: Subject, num_episodes: int, max_steps: int, seed: int) -> Iterator[Measure]:
    """Give what measures how well a network does under an attack."""
    if subject.player is None:
        assert subject.labels is not None
        yield partial(accuracy, subject.scores, subject.device, subject.pictures, subject.labels)
        return
    settings = subject.player.experiment.env.for_evaluation()
    env = replace(settings, num_envs=num_episodes).make()
    try:
        yield partial(episode_score, env, subject.player.agent, max_steps, seed)
    finally:
        env.close()


def table(found: Mapping[str, Sequence[Point]], size: str, unit: str) -> list[list[str]]:
    """Return a row for each size, below one of heads."""
    rows = zip(*found.values(), strict=True)
    return [
        [size, *found],
        *([f"{row[0].size:g}", *(told(point, unit) for point in row)] for row in rows),
    ]


def latest(found: Mapping[str, Sequence[Point]], unit: str) -> str:
    return ", ".join(f"{name} {told(points[-1], unit)}" for name, points in found.items())


def told(point: Point, unit: str) -> str:
    mean, low, high = (f"{x:.1%}" if unit == "accuracy" else number(x) for x in point[1:])
    return f"{mean} ({low} to {high})"


def as_json(found: Mapping[str, Sequence[Point]]) -> dict[str, list[dict[str, float]]]:
    return {name: [point._asdict() for point in points] for name, points in found.items()}


def curves(
    folder: Path,
    unit: str,
    found: Mapping[str, Sequence[Point]],
    covered: Mapping[str, Sequence[Point]],
) -> None:
    """Draw the curves of both kinds of attack side by side."""
    kinds = {
        (f"{unit.capitalize()}, every pixel moved", "epsilon, grey levels of 255"): found,
        (f"{unit.capitalize()}, a patch on it", "side of the patch, pixels"): covered,
    }
    panels = [
        plot.Panel(
            title,
            x_title,
            {name: as_curve(points) for name, points in some.items()},
            share=unit == "accuracy",
        )
        for (title, x_title), some in kinds.items()
        if some
    ]
    plot.save(plot.figure(panels), folder, "adversarial")
    (folder / "adversarial.svg").unlink()


def as_curve(points: Sequence[Point]) -> Curve:
    x, mean, low, high = np.array(points, np.float64).T
    return Curve(x, mean, low, high, about="95% interval")


def examples(
    subject: Subject,
    folder: Path,
    index: Sequence[int],
    epsilon: int,
    change: Array,
    square: Array | None,
    seed: int,
) -> None:
    """Draw pictures, what attacks change in them, and what is said of them then."""
    pictures = subject.pictures[list(index)]
    right = None if subject.labels is None else subject.labels[list(index)]
    attacked = [
        fast_gradient_sign(subject.scores, subject.device, epsilon)(pictures, right),
        added(change)(pictures, right),
        noise(epsilon, seed)(pictures, right),
    ]
    if square is not None:
        attacked.append(pasted(square, seed)(pictures, right))
    said = [subject.chosen(some) for some in (pictures, *attacked)]
    moments = subject.num_moments
    rows, captions = [], []
    for i, picture in enumerate(pictures):
        difference = attacked[0][i].astype(np.float32) - picture  # [C, H, W]
        row = [
            gallery.shown(picture, moments),
            gallery.diverging(difference[-1] / max(epsilon, 1) / 1.5),
        ]
        row += [gallery.shown(some[i], moments) for some in attacked]
        rows.append(row)
        names = [subject.names[one[i]] for one in said]
        captions.append([names[0], "", *names[1:]])
    heads = ["picture", "its change", "fast gradient", "one for all", "noise"]
    heads += ["patch"] * (square is not None)
    write(folder, "examples.png", gallery.table(rows, heads, (), captions, cell=126))
