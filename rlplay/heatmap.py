"""Heat maps of what an agent thinks of each state, with arrows for what it would do there or, where
actions go nowhere, beside maps of what it would do (Sutton & Barto 2018, figures 3.5, 4.2, 5.2).

Several maps side by side, cells as large as fit. All places and sizes of type are in pixels: one
pair of axes spans the picture. It knows a world's layout only, and no agent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlplay.core import Array, Layout, Spec
from rlplay.palette import digits
from rlplay.plot import COLOURS, FAINT, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1200, 860  # that a picture may take, if cells need not get smaller than SMALLEST
LARGEST, SMALLEST = 72, 4  # cell
ROOM = 46  # of a cell in which its value can be written
LEFT, TOP, RIGHT, BOTTOM, GAP, HEADING = 56, 48, 116, 44, 16, 28  # around maps, and between them
WALL, UNKNOWN = "#c9c9c9", "#f1f1f1"


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


def draw(values: Array, policy: Array, layout: Layout, spec: Spec, title: str) -> Figure:
    """Draw values [S] and policy [S, A], zeros where an episode is over: a heat map of each panel,
    with arrows on it or, without arrows, a map of what is done beside it."""
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

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

    live = policy[drawn].any(1)  # the value of what is over is no matter of opinion
    colours, bar = shades(np.where(live, values[drawn], np.nan))
    place = corners[panel * together + together - 1] + np.stack([column, row], 1) * grid.cell
    tiles, faces = [place], [colours]
    if together == 2:
        tiles.append(corners[panel * 2] + np.stack([column, row], 1) * grid.cell)
        faces.append(deeds(policy[drawn], spec))
    square = np.array([[0, 0], [0, 1], [1, 1], [1, 0]]) * grid.cell
    polygons = np.concatenate(tiles)[:, None] + square  # [cells, 4, 2]
    edge = 0.8 if grid.cell >= 10 else 0
    look = {"edgecolors": "white", "linewidths": edge, "antialiaseds": edge > 0}
    axes.add_collection(PolyCollection(list(polygons), facecolors=np.concatenate(faces), **look))
    inks = contrast(colours)
    if layout.arrows is None:
        legend(axes, spec, policy, tiles[1], drawn, grid, contrast(faces[1]))
    elif grid.cell >= 10:
        arrows(axes, policy[drawn], layout.arrows, spec, place + grid.cell / 2, grid.cell, inks)
    letters(axes, values, policy, layout, drawn, place, grid.cell, inks)
    scale(axes, grid, *bar, share=0.42 if together == 2 else 1)  # over the legend, if there is one
    return figure


def scale(axes: Axes, grid: Grid, name: str, low: float, high: float, share: float) -> None:
    """Draw the colour bar, over a share of the height."""
    import matplotlib

    (width, height), top = grid.size, TOP + HEADING
    left, tall = width - RIGHT + 12, min((height - top - BOTTOM) * share, 340)
    gradient = matplotlib.colormaps[name](np.linspace(1, 0, 128))[:, None]
    axes.imshow(gradient, extent=(left, left + 14, top + tall, top), aspect="auto", zorder=2)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.text(left, top - 17, "value", size=11, color=FAINT, va="center")
    for value in np.linspace(low, high, 5).tolist():
        y = top + tall * (high - value) / (high - low)
        written = rounded(value, max(abs(low), abs(high)))
        axes.text(left + 20, y, written, size=11, color=FAINT, va="center")


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


def arrows(
    axes: Axes, policy: Array, ways: Array, spec: Spec, centre: Array, cell: int, inks: Array
) -> None:
    """Draw in each cell, at `centre` [n, 2], an arrow for each action of `policy` [n, A], as long
    as it is probable beside the most probable one; the letter of one that goes nowhere."""
    from matplotlib.collections import PolyCollection

    way = np.asarray(ways, float)[:, ::-1]  # [A, 2] right and down
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
            written = rounded(float(values[state]), 10 * largest)
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


def rounded(value: float, largest: float) -> str:
    """Return a value with as many decimals as numbers up to `largest` have room for."""
    written = digits(value, largest)
    return minus(written if float(written) else written.removeprefix("-"))


def minus(written: str) -> str:
    return written.replace("-", "\N{MINUS SIGN}")
