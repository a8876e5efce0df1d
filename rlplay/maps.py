"""What an agent thinks of every state of a small world, drawn where the states lie: the value as a
heat map, the greedy policy as arrows or, where actions go nowhere, as a second map (Sutton & Barto
2018, figures 3.5, 4.2 and 5.2); both as curves where all states lie in a row (figure 4.3).

It asks agents as anyone does, through `act`, and knows of a world only its Spec. True values are
not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gymnasium.spaces import Discrete

from rlplay.core import Agent, Array, Layout, Mistake, Spec, Step
from rlplay.model import Model
from rlplay.plot import COLOURS, FAINT, INK, style, write
from rlplay.record import digits, encoder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS_ASKED = 100_000  # states times learners, in one call of `act`
WIDTH, HEIGHT = 1200, 860  # that a picture may take; its parts and type are in pixels, too
LARGEST, SMALLEST = 72, 4  # cell
ROOM = 46  # of a cell in which its value can be written
LEFT, TOP, RIGHT, BOTTOM, GAP, HEADING = 56, 48, 116, 44, 16, 28  # around maps, and between them
ROW_SIZE = (840, 620)  # of a picture of states in a row; the upper half where nothing is decided
WALL, UNKNOWN = "#c9c9c9", "#f1f1f1"
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
            figure = curves(values, policy, spec, title)
        else:
            figure = maps(values, policy, spec, title)
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


# Maps.


@dataclass(frozen=True)
class Grid:
    """Where the maps lie on the picture, pixels."""

    num_maps: int
    columns: int  # of maps
    shape: tuple[int, int]  # cells of one map, rows and columns
    cell: int  # side

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, both even."""
        rows = -(-self.num_maps // self.columns)
        width = LEFT + RIGHT + self.columns * (self.shape[1] * self.cell + GAP)
        height = TOP + BOTTOM + rows * (self.shape[0] * self.cell + HEADING)
        return width + width % 2, max(height + height % 2, 260)

    def corner(self, number: int) -> tuple[int, int]:
        """Left and top of a map."""
        row, column = divmod(number, self.columns)
        left = LEFT + column * (self.shape[1] * self.cell + GAP)
        return left, TOP + HEADING + row * (self.shape[0] * self.cell + HEADING)

    @classmethod
    def of(cls, num_maps: int, shape: tuple[int, int], together: int) -> Grid:
        """Return the arrangement with the largest cells, `together` maps never torn apart."""
        best = cls(num_maps, together, shape, SMALLEST)
        for columns in range(together, num_maps + 1, together):
            for cell in range(LARGEST, best.cell, -1):
                grid = cls(num_maps, columns, shape, cell)
                if grid.size[0] <= WIDTH and grid.size[1] <= HEIGHT:
                    best = grid
                    break
        return best


def maps(values: Array, policy: Array, spec: Spec, title: str) -> Figure:
    """Draw a heat map of each panel with arrows on it or, without arrows, beside it a map of what
    is done."""
    import matplotlib
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    layout = layout_of(spec)
    drawn = np.flatnonzero(layout.cells[:, 0] >= 0)
    panel, row, column = layout.cells[drawn].T
    shape = (int(row.max()) + 1, int(column.max()) + 1)
    together = 1 if layout.arrows is not None else 2
    grid = Grid.of(len(layout.panels) * together, shape, together)
    width, height = grid.size
    figure = Figure((width / 72, height / 72), dpi=72)  # so that type is in pixels, too
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    axes.text(LEFT, 26, title, size=15, weight="bold", va="center")
    corners = np.array([grid.corner(i) for i in range(grid.num_maps)])  # [maps, 2]
    frame(axes, layout, grid, corners, together)

    colours, bar = shades(values[drawn])
    place = corners[panel * together + together - 1] + np.stack([column, row], 1) * grid.cell
    tiles, faces = [place], [colours]
    if together == 2:
        tiles.append(corners[panel * 2] + np.stack([column, row], 1) * grid.cell)
        faces.append(deeds(policy[drawn], spec))
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * grid.cell
    polygons = np.concatenate(tiles)[:, None] + square  # [cells, 4, 2]
    edge = 0.8 if grid.cell >= 10 else 0
    axes.add_collection(
        PolyCollection(
            list(polygons),
            facecolors=np.concatenate(faces),
            edgecolors="white",
            linewidths=edge,
            antialiaseds=edge > 0,
        )
    )
    inks = contrast(colours)
    if together == 2:
        legend(axes, spec, policy, tiles[1], drawn, grid, contrast(faces[1]))
    elif grid.cell >= 10:
        arrows(axes, policy[drawn], spec, place + grid.cell / 2, grid.cell, inks)
    letters(axes, values, policy, layout, drawn, place, grid.cell, inks)
    # The colour bar, over the legend of what is done where there is one.
    left, top, tall = width - RIGHT + 12, TOP + HEADING, height - TOP - BOTTOM - HEADING
    tall = tall * 0.42 if together == 2 else min(tall, 340)
    colormap, low, high = bar
    gradient = matplotlib.colormaps[colormap](np.linspace(1, 0, 128))[:, None]
    axes.imshow(gradient, extent=(left, left + 14, top + tall, top), aspect="auto", zorder=2)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.text(left, top - 17, "value", size=11, color=FAINT, va="center")
    for value in np.linspace(low, high, 5):
        y = top + tall * (high - value) / (high - low)
        written = minus(digits(value, max(abs(low), abs(high))))
        axes.text(left + 20, y, written, size=11, color=FAINT, va="center")
    return figure


def frame(axes: Axes, layout: Layout, grid: Grid, corners: Array, together: int) -> None:
    """Draw what surrounds the cells: grey where there is no state, titles and labels."""
    from matplotlib.patches import Rectangle

    (rows, columns), cell = grid.shape, grid.cell
    row_labels = layout.labels[0] or tuple(map(str, range(rows)))
    column_labels = layout.labels[1] or tuple(map(str, range(columns)))
    widest = max(map(len, column_labels))
    for i, (left, top) in enumerate(corners.tolist()):
        axes.add_patch(Rectangle((left, top), columns * cell, rows * cell, color=WALL, lw=0))
        heading = layout.panels[i // together]
        if together == 2:
            heading = ": ".join(filter(None, [("policy", "value")[i % 2], heading]))
        axes.text(left, top - 11, heading, size=12, va="center")
        bottom = top + rows * cell
        if i % grid.columns == 0:
            for k in range(0, rows, math.ceil(14 / cell)):
                axes.text(left - 6, top + (k + 0.5) * cell, row_labels[k], size=10, color=FAINT,
                          ha="right", va="center_baseline")  # fmt: skip
            axes.text(14, (top + bottom) / 2, layout.axes[0], size=11, color=FAINT, rotation=90,
                      ha="center", va="center")  # fmt: skip
        if i + grid.columns >= len(corners):
            for k in range(0, columns, math.ceil((7 * widest + 4) / cell)):
                axes.text(left + (k + 0.5) * cell, bottom + 11, column_labels[k], size=10,
                          color=FAINT, ha="center", va="center")  # fmt: skip
            axes.text(left + columns * cell / 2, bottom + 29, layout.axes[1], size=11, color=FAINT,
                      ha="center", va="center")  # fmt: skip


def shades(values: Array) -> tuple[Array, tuple[str, float, float]]:
    """Return the colours [n, 4] of values [n], and name and ends of their scale: one that diverges
    from 0 where values lie on both sides of it."""
    import matplotlib
    from matplotlib.colors import to_rgba

    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    name, reach = "viridis", max(-low, high)
    if min(-low, high) > 0.05 * reach:
        name, low, high = "RdBu", -reach, reach
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    colours = matplotlib.colormaps[name]((np.nan_to_num(values) - low) / (high - low))
    colours[~np.isfinite(values)] = to_rgba(UNKNOWN)
    return colours, (name, low, high)


def contrast(colours: Array) -> Array:
    """Return for each colour [n, 4] the ink, [n] of text, that can be read on it."""
    return np.where(colours[:, :3] @ [0.299, 0.587, 0.114] > 0.45, INK, "white")


def arrows(axes: Axes, policy: Array, spec: Spec, centre: Array, cell: int, inks: Array) -> None:
    """Draw in each cell, at `centre` [n, 2], an arrow for each action of `policy` [n, A], as long
    as it is probable beside the most probable one; the letter of one that goes nowhere."""
    from matplotlib.collections import PolyCollection

    way = np.asarray(layout_of(spec).arrows, float)[:, ::-1]  # [A, 2] right and down
    size = np.hypot(*way.T)
    way = way / np.where(size > 0, size, 1)[:, None]
    share = policy / np.maximum(policy.max(1, keepdims=True), 1e-12)
    shown = share >= 0.15
    polygons, colours = [], []
    for i, action in zip(*np.nonzero(shown & (size > 0)), strict=True):
        alone = shown[i].sum() == 1
        long, tail = (0.62, -0.31) if alone else (0.42, 0.04)
        ahead, aside = way[action], way[action][::-1] * (1, -1)
        reach = tail + np.array([0, long - 0.17, long - 0.17, long, long - 0.17, long - 0.17, 0])
        half = np.array([0.035, 0.035, 0.11, 0, -0.11, -0.035, -0.035])
        outline = reach[:, None] * ahead + half[:, None] * aside
        polygons.append(centre[i] + outline * cell * share[i, action])
        colours.append(inks[i])
    axes.add_collection(PolyCollection(polygons, facecolors=colours, edgecolors="none", zorder=3))
    names = spec.action_names or tuple(map(str, range(spec.num_actions)))
    for i in np.flatnonzero((shown & (size == 0)).any(1)):
        written = "".join(names[a][:1].upper() for a in np.flatnonzero(shown[i] & (size == 0)))
        axes.text(centre[i, 0], centre[i, 1], written, size=0.42 * cell, color=inks[i], ha="center",
                  va="center_baseline", zorder=3)  # fmt: skip


def letters(
    axes: Axes, values: Array, policy: Array, layout: Layout, drawn: Array, place: Array,
    cell: int, inks: Array,
) -> None:  # fmt: skip
    """Write the value of each state where there is room, and the mark of those that have one: in
    the middle where nothing is decided, else in the corner."""
    largest = float(np.nanmax(np.abs(values[drawn]), initial=0))
    for state, (left, top), ink in zip(drawn.tolist(), place.tolist(), inks, strict=True):
        if cell >= ROOM and np.isfinite(values[state]) and policy[state].any():
            written = minus(digits(float(values[state]), 10 * largest))  # short
            axes.text(left + 4, top + 9, written, size=9, color=ink, va="center", zorder=3)
        if mark := layout.marks.get(state, ""):
            if not policy[state].any():
                axes.text(left + cell / 2, top + cell / 2, mark, size=0.45 * cell, color=ink,
                          weight="bold", ha="center", va="center_baseline", zorder=3)  # fmt: skip
            elif cell >= 24:
                axes.text(left + cell - 3, top + cell - 3, mark, size=max(9, 0.2 * cell), color=ink,
                          weight="bold", ha="right", va="baseline", zorder=3)  # fmt: skip


# What is done, where no arrows can show it.


def amounts(spec: Spec) -> Array | None:
    """Return the numbers that the actions' names end in, [A] float64, or None where they are
    words."""
    names = spec.action_names or tuple(map(str, range(spec.num_actions)))
    try:
        return np.array([float(name.rpartition(" ")[2]) for name in names])
    except ValueError:
        return None


def action_colours(spec: Spec) -> Array:
    """Return a colour per action, [A, 4]: a scale for amounts, else as different as can be."""
    from matplotlib.colors import to_rgba_array

    amount = amounts(spec)
    if amount is not None and spec.num_actions > 2:
        return shades(amount)[0]
    chosen = [COLOURS[i % len(COLOURS)] for i in range(spec.num_actions)]
    return to_rgba_array(chosen)


def deeds(policy: Array, spec: Spec) -> Array:
    """Return the colours [n, 4] of what is done most in each state, the paler the less often."""
    colours = action_colours(spec)[policy.argmax(1)]
    return 1 - (1 - colours) * policy.max(1, keepdims=True)


def legend(
    axes: Axes, spec: Spec, policy: Array, place: Array, drawn: Array, grid: Grid, inks: Array
) -> None:
    """Say which colour is which action: in the cells where there is room, and on the right."""
    from matplotlib.collections import PathCollection
    from matplotlib.patches import Rectangle
    from matplotlib.textpath import TextPath
    from matplotlib.transforms import Affine2D, IdentityTransform

    names = [minus(n) for n in spec.action_names or map(str, range(spec.num_actions))]
    if grid.cell >= 9 * max(map(len, names)):
        done, size = np.where(policy.any(1), policy.argmax(1), -1)[drawn], min(11, grid.cell / 2)
        for action in np.unique(done[done >= 0]).tolist():  # as outlines: 400 texts would be slow
            outline = TextPath((0, 0), names[action], size)
            middle = outline.get_extents().get_points().mean(0)
            outline = outline.transformed(Affine2D().translate(-middle[0], -0.36 * size))
            centres = place[done == action] + grid.cell / 2
            axes.add_collection(
                PathCollection(
                    [outline],
                    offsets=centres,
                    offset_transform=axes.transData,
                    transform=IdentityTransform(),
                    facecolors=inks[done == action].tolist(),
                    edgecolors="none",
                    zorder=3,
                )
            )
    width, height = grid.size
    left, top = width - RIGHT + 12, TOP + HEADING + 0.5 * (height - TOP - BOTTOM - HEADING)
    axes.text(left, top + 8, "action", size=11, color=FAINT, va="center")
    pitch = min(20.0, (height - BOTTOM - top - 20) / len(names))
    most = max(1, math.ceil(11 / pitch))  # of so many, one name is written
    for i, colour in enumerate(action_colours(spec)):
        y = top + 20 + i * pitch
        axes.add_patch(Rectangle((left, y), 14, pitch, color=colour, lw=0))
        if i % most == 0:
            axes.text(left + 20, y + pitch / 2, names[i][:12], size=min(11, pitch * most),
                      color=FAINT, va="center_baseline")  # fmt: skip


def minus(written: str) -> str:
    return written.replace("-", "\N{MINUS SIGN}")


# States in a row.


def curves(values: Array, policy: Array, spec: Spec, title: str) -> Figure:
    """Draw value and greedy action against the state."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    layout = layout_of(spec)
    drawn = np.flatnonzero((layout.cells[:, 0] >= 0) & policy.any(1))
    drawn = drawn[layout.cells[drawn, 2].argsort()]
    column = layout.cells[drawn, 2]
    num_rows = 2 if spec.num_actions > 1 else 1
    width, height = ROW_SIZE[0], ROW_SIZE[1] * num_rows // 2
    figure = Figure((width / 72, height / 72), dpi=72)
    figure.text(0.08, 1 - 26 / height, title, size=15, weight="bold", va="center")
    marker = "o" if len(drawn) <= 40 else ""
    tall = (height - TOP) / num_rows
    for i in range(num_rows):
        bottom = height - TOP - (i + 1) * tall + BOTTOM + 4
        axes = figure.add_axes((0.08, bottom / height, 0.9, (tall - BOTTOM - 32) / height))
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
    """Draw a dot for each action of `policy` [n, A], of an area in proportion to its share, and a
    line of steps where everything is certain."""
    amount = amounts(spec)
    y = np.arange(spec.num_actions) if amount is None else amount
    if amount is None:
        axes.set_yticks(y, spec.action_names)
    axes.set_ylim(y.min() - 0.5, y.max() + 0.5)
    state, action = np.nonzero(policy > 0.01)
    area = 30 * policy[state, action] if len(column) <= 40 else 10 * policy[state, action]
    axes.scatter(column[state], y[action], area, color=COLOURS[1], linewidths=0)
    if (policy.max(1) > 0.99).all():
        axes.step(column, y[policy.argmax(1)], where="mid", color=COLOURS[1], linewidth=1.2)
