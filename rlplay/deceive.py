"""How well a network does against the size of an attack, as curves, numbers and examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from rlplay import plot
from rlplay.adversarial import (
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
from rlplay.core import Array
from rlplay.curves import Curve
from rlplay.exhibits import write
from rlplay.page import Exhibit, Figure
from rlplay.palette import number
from rlplay.perception import gallery
from rlplay.subject import Subject

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
    scores, device, others = subject.scores, subject.device, subject.others
    assert others is not None
    measure: Measure
    if subject.player is not None:
        measure = partial(episode_score, subject.player, num_episodes, max_steps, seed + APART)
        unit, about = "score", f"mean score of {num_episodes} episodes of at most {max_steps} steps"
    else:
        assert subject.labels is not None
        measure = partial(accuracy, scores, device, subject.pictures, subject.labels)
        unit, about = "accuracy", f"share of {len(subject.labels):,} test pictures told right"
    epsilons = epsilons or (TASK if subject.player is None else AGENT)
    clean = measure(lambda pictures, right: pictures)
    found: dict[str, list[Point]] = {FAST: [], FOR_ALL: [], CHANCE: []}
    for epsilon in sorted(set(epsilons)):
        change = universal(scores, device, others, epsilon, seed)
        attacks = {
            FAST: fast_gradient_sign(scores, device, epsilon),
            FOR_ALL: added(change),
            CHANCE: noise(epsilon, seed),
        }
        for name, attack in attacks.items():
            found[name].append(Point(epsilon, *(measure(attack) if epsilon else clean)))
        announce(
            f"{unit} at epsilon {epsilon}: "
            + ", ".join(f"{name} {told(found[name][-1], unit)}" for name in attacks)
        )
    height, width = subject.pictures.shape[2:]
    sides = sorted({max(1, round(share * min(height, width))) for share in patches if share})
    covered: dict[str, list[Point]] = {name: [Point(0, *clean)] for name in (PATCH, SQUARE)}
    square = None
    for side in sides:
        square = patch(scores, device, others, side, seed)
        covered[PATCH].append(Point(side, *measure(pasted(square, seed))))
        chance = noise_patch(others, side, seed)
        covered[SQUARE].append(Point(side, *measure(pasted(chance, seed))))
        announce(
            f"{unit} with a patch of {side} pixels: "
            + ", ".join(f"{name} {told(points[-1], unit)}" for name, points in covered.items())
        )
    curves(folder, unit, found, covered if sides else {})
    report = {
        "of": subject.about,
        "measured": about,
        "epsilon": as_json(found),
        "patch": as_json(covered if sides else {}),
    }
    (folder / "adversarial.json").write_text(json.dumps(report, indent=2) + "\n")
    shown = max(2, sorted(epsilons)[len(epsilons) // 2])
    examples(subject, folder, index, shown, seed, square)
    table = [[f"{unit} at epsilon", *(f"{point.size:g}" for point in found[FAST])]]
    table += [[name, *(told(point, unit) for point in points)] for name, points in found.items()]
    return Exhibit(
        "How easily it is deceived",
        "Every pixel is moved by epsilon of 255 grey levels: each picture's own way, by the sign"
        " of its gradient (Goodfellow et al. 2015); one and the same way for all pictures"
        " (Moosavi-Dezfooli et al. 2017), learned from pictures that are not tested; or up and"
        " down at random, which is the control. A patch (Brown et al. 2017) may look as it likes,"
        " but lies anywhere; its control is a patch of noise. "
        + ("Episodes begin alike under all attacks, and every observation is attacked. "
           if subject.player is not None else "")
        + f"Shown is the {about}, with its 95% interval.",
        [
            Figure("adversarial.png", f"The {unit} against the size of the attack."),
            Figure("examples.png", f"Attacks of epsilon {shown}, and what it says of them; the"
                   f" changes are drawn {127 / shown:.0f} times as large."),
        ],
        table,
    )  # fmt: skip


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
    subject: Subject, folder: Path, index: Sequence[int], epsilon: int, seed: int,
    square: Array | None,
) -> None:  # fmt: skip
    """Draw pictures, what attacks change in them, and what is said of them then."""
    pictures = subject.pictures[list(index)]
    right = None if subject.labels is None else subject.labels[list(index)]
    assert subject.others is not None
    change = universal(subject.scores, subject.device, subject.others, epsilon, seed)
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
        difference = attacked[0][i].astype(np.float32) - picture
        row = [gallery.shown(picture, moments), gallery.diverging(difference[-1] / epsilon / 1.5)]
        row += [gallery.shown(some[i], moments) for some in attacked]
        rows.append(row)
        names = [subject.names[one[i]] for one in said]
        captions.append([names[0], "", *names[1:]])
    heads = ["picture", "its change", "fast gradient", "one for all", "noise"]
    heads += ["patch"] * (square is not None)
    write(folder, "examples.png", gallery.table(rows, heads, (), captions, cell=126))
