"""What an agent thinks of every state of a small world, drawn where the states lie: the value as a
heat map, the greedy policy as arrows or, where actions go nowhere, as a second map (Sutton & Barto
2018, figures 3.5, 4.2 and 5.2); both as curves where all states lie in a row (figure 4.3).

It asks agents as anyone does, through `act`, and knows of a world only its Spec. True values are
not known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.spaces import Discrete

from rlplay import heatmap
from rlplay.core import Agent, Array, Layout, Mistake, Spec, Step
from rlplay.model import Model
from rlplay.plot import COLOURS, style, write
from rlplay.record import encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS_ASKED = 100_000  # states times learners, in one call of `act`
ROW_SIZE = (840, 620)  # of a picture of states in a row; the upper half where nothing is decided
RATE, FRAMES, LAST = 10, 3, 20  # of a film, Hz; frames of each picture, and of the last one more


def known(agent: Agent, spec: Spec) -> tuple[Array, Array]:
    """Return what the agent expects of each state, [S] float64, and with which probabilities it
    would act there, [S, A] float64; the mean over independent learners. In terminal states both are
    0; values are NaN where the agent tells none. Raises Mistake where the world has no layout."""
    layout, num_actions = layout_of(spec), spec.num_actions
    num_states = len(layout.cells)
    num_learners = getattr(agent, "num_learners", spec.num_envs)
    legal = np.ones((num_states, num_actions), bool)
    if isinstance(spec.model, Model):
        legal = spec.model.action_mask
    live = np.flatnonzero(legal.any(1))
    values, policy = np.zeros(num_states), np.zeros((num_states, num_actions))
    size = max(1, ROWS_ASKED // num_learners)
    for states in (live[i : i + size] for i in range(0, len(live), size)):
        observation = np.repeat(states, num_learners)  # learner i mod N answers for env i
        mask = legal[observation]
        agent.begin()  # in each state as if an episode began there
        decision = agent.act(Step.at(observation, num_actions, action_mask=mask), explore=False)
        expected = np.full(len(observation), np.nan)
        if "value" in decision.notes:
            expected = decision.notes["value"]
        elif "q_values" in decision.notes:
            expected = np.where(mask, decision.notes["q_values"], -np.inf).max(1)
        chosen = decision.notes.get("policy", np.eye(num_actions)[decision.action])
        values[states] = expected.reshape(-1, num_learners).mean(1)
        policy[states] = chosen.reshape(-1, num_learners, num_actions).mean(1)
    return values, policy


def picture(values: Array, policy: Array, spec: Spec, title: str = "") -> Array:
    """Draw values [S] and policy [S, A] where the states lie; return [H, W, 3] uint8 with even
    sides, of the same shape for the same spec. Raises Mistake where the world has no layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    layout = layout_of(spec)
    with style():
        if len(layout.panels) == 1 and not layout.cells[layout.cells[:, 0] >= 0, 1].any():
            figure = curves(values, policy, layout, spec, title)
        else:
            figure = heatmap.draw(values, policy, layout, spec, title)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    return np.array(canvas.buffer_rgba())[:, :, :3]


def save(picture: Array, path: Path) -> bytes:
    """Write a picture [H, W, 3] uint8 as PNG, whole or not at all; return its bytes."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, "PNG")
    write(path, file.getvalue())
    return file.getvalue()


def film(pictures: Sequence[Path], path: Path) -> None:
    """Write an mp4 of PNGs of the same even size, in order, 0.3 s each and the last 2 s longer;
    whole or not at all. Raises ValueError where there is none, or where they differ in size."""
    from PIL import Image

    if not pictures:
        raise ValueError("a film needs a picture")
    half = path.with_name(f".{path.stem}.mp4")
    with Image.open(pictures[0]) as first:
        size = first.size
    try:
        with encoder(half, size, RATE) as show:
            for file in pictures:
                with Image.open(file) as opened:
                    image = opened.convert("RGB")
                if image.size != size:
                    raise ValueError(f"{file} is {image.size}, and the pictures before it {size}")
                for _ in range(FRAMES + LAST * (file is pictures[-1])):
                    show(image)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def layout_of(spec: Spec) -> Layout:
    if spec.layout is None or not isinstance(spec.observation_space, Discrete):
        raise Mistake("this world has no map of its states; `rlplay record` films its play")
    return spec.layout


# States in a row.


def curves(values: Array, policy: Array, layout: Layout, spec: Spec, title: str) -> Figure:
    """Draw value and greedy action against the state."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = np.flatnonzero((layout.cells[:, 0] >= 0) & policy.any(1))
    drawn = drawn[layout.cells[drawn, 2].argsort()]
    column = layout.cells[drawn, 2]
    num_rows = 2 if spec.num_actions > 1 else 1
    width, height = ROW_SIZE[0], ROW_SIZE[1] * num_rows // 2
    figure = Figure((width / 72, height / 72), dpi=72)
    figure.text(0.08, 1 - 26 / height, title, size=15, weight="bold", va="center")
    marker = "o" if len(drawn) <= 40 else ""
    tall = (height - heatmap.TOP) / num_rows
    for i in range(num_rows):
        bottom = height - heatmap.TOP - (i + 1) * tall + heatmap.BOTTOM + 4
        axes = figure.add_axes((0.08, bottom / height, 0.9, (tall - heatmap.BOTTOM - 32) / height))
        axes.tick_params(labelsize=11)
        axes.set_xlabel(layout.axes[1] or "state", size=11)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if layout.labels[1] and len(drawn) <= 40:
            axes.set_xticks(column, [layout.labels[1][k] for k in column])
        if i == 0:
            axes.set_title("value", size=12)
            axes.plot(column, values[drawn], color=COLOURS[0], marker=marker, markersize=5)
        else:
            axes.set_title("policy", size=12)
            choices(axes, column, policy[drawn], spec)
    return figure


def choices(axes: Axes, column: Array, policy: Array, spec: Spec) -> None:
    """Draw `policy` [n, A] as a line of steps or, where not everything is certain, a dot for each
    action, of an area in proportion to its share."""
    amount = heatmap.amounts(spec)
    y = np.arange(spec.num_actions) if amount is None else amount
    if amount is None:
        axes.set_yticks(y, spec.action_names)
    axes.set_ylim(y.min() - 0.5, y.max() + 0.5)
    if (policy.max(1) > 0.99).all():
        axes.step(column, y[policy.argmax(1)], where="mid", color=COLOURS[1])
        return
    state, action = np.nonzero(policy > 0.01)
    area = (30 if len(column) <= 40 else 10) * policy[state, action]
    axes.scatter(column[state], y[action], area, color=COLOURS[1], linewidths=0)
