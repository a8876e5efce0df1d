"""One frame of a film: the game on the left, and beside it what the agent thinks of it.

What a search looked at is drawn on the board itself: a disc on each legal move, as large as its
share of the visits, in the colour of the player who moves. It knows of a world only its Spec, and
of a board game where its moves lie in the picture.
"""

from __future__ import annotations

import math
from collections import deque
from typing import NamedTuple

import numpy as np

from rlplay.core import Array, Spec
from rlplay.game import COLOURS, STONE, BoardGame
from rlplay.palette import AMBER, BLUE, GREEN, LINE, NIGHT, RED, SLATE, SNOW, Ink, digits, number
from rlplay.play import Moment

HEIGHT, PANEL_WIDTH, MAX_ROWS = 420, 320, 18  # the smallest frame; the most actions listed
SIZES = (10, 12, 18, 30)  # of type
TRACE = 120  # moments in the curve of values
INKS = (AMBER, BLUE)  # of the players of a board game
CLEAR = 150  # how far a disc hides what is below, of 255
ALONG = 0.68  # of the way from cell to cell, where no two moves have the same place


class Thought(NamedTuple):
    """What an agent noted before an action."""

    kind: str  # of `expected`: "visits", "q_values", "policy" or ""
    expected: Array  # [A], of visits the share; nan where illegal or not told
    value: float  # nan where not told


def thought(moment: Moment) -> Thought:
    """Return what is to be shown of a decision's notes; visits only where there was a search."""
    notes, legal = moment.decision.notes, moment.step.action_mask[0]
    kinds = [kind for kind in ("visits", "q_values", "policy") if kind in notes]
    if "visits" in kinds and not notes["visits"][0].any():
        kinds.remove("visits")
    kind = kinds[0] if kinds else ""
    expected = np.where(legal, notes[kind][0] if kind else np.nan, np.nan)
    value = math.nan
    if "value" in notes:
        value = float(notes["value"][0])
    elif "q_values" in notes:
        value = float(np.nanmax(np.where(legal, notes["q_values"][0], np.nan)))
    if kind == "visits":
        expected = expected / np.nansum(expected)
    return Thought(kind, expected, value)


def signed(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:+.2f}"


class Canvas:
    """A frame of any world."""

    max_rows, max_zoom = MAX_ROWS, HEIGHT
    inks = AMBER, BLUE  # of the bar of the action chosen, and of the others

    def __init__(self, picture: Array, spec: Spec, panel: bool) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.shape = tall, wide, _ = picture.shape
        zoom = min(math.ceil(0.95 * HEIGHT / tall), 4 * HEIGHT // wide, self.max_zoom)
        self.zoom = max(1, zoom)
        height, self.left = max(HEIGHT, tall * self.zoom), wide * self.zoom
        self.top = (height - tall * self.zoom) // 2
        self.unit = height / HEIGHT  # the panel is drawn in units of this many pixels
        width = self.left + (round(PANEL_WIDTH * self.unit) if panel else 0)
        self.image = Image.new("RGB", (width + width % 2, height + height % 2), NIGHT)
        self.draw = ImageDraw.Draw(self.image)
        self.fonts = {size: ImageFont.load_default(size * self.unit) for size in SIZES}
        self.panel = panel
        self.names = spec.action_names or tuple(map(str, range(spec.num_actions)))
        self.several = spec.num_players > 1
        self.low, self.high = math.inf, -math.inf  # of all expectations shown so far
        self.values: deque[float] = deque(maxlen=TRACE)
        self.place(picture)

    def place(self, picture: Array) -> None:
        """Put the game's picture [H, W, 3] in its place, enlarged."""
        from PIL import Image

        if picture.shape != self.shape:
            raise ValueError(f"the picture was {self.shape} and is now {picture.shape}")
        self.picture = Image.fromarray(picture)
        size = (self.picture.width * self.zoom, self.picture.height * self.zoom)
        self.image.paste(self.picture.resize(size, Image.Resampling.NEAREST), (0, self.top))

    def tell(self, moment: Moment, step: int, score: float, reward: float, over: str = "") -> None:
        """Draw the agent's view of a moment, or of the one that ended the episode."""
        if not self.panel:
            return
        seen, chosen = thought(moment), moment.decision.action[0]
        self.image.paste(NIGHT, (self.left, 0, *self.image.size))
        self.head(moment, seen, step, score, reward, over)
        self.box(18, 72, 302, 73, LINE)
        q_values = moment.decision.notes.get("q_values") if seen.kind == "visits" else None
        titles = {
            "visits": "SHARE OF VISITS" if q_values is None else "SHARE OF VISITS AND VALUE",
            "q_values": "VALUE OF EACH ACTION",
            "policy": "PROBABILITY OF EACH ACTION",
        }
        self.text(18, 92, titles.get(seen.kind, "ACTIONS" if self.names else ""), 10, SLATE)
        self.text(302, 92, over, 12, AMBER, "rs")
        bottom = self.bars(seen, chosen, None if q_values is None else q_values[0])
        if HEIGHT - bottom > 90 and not math.isnan(seen.value):
            self.trace(bottom + 16, HEIGHT - 16)

    def head(
        self, moment: Moment, seen: Thought, step: int, score: float, reward: float, over: str
    ) -> None:
        """Write how the episode stands."""
        self.values.append(seen.value)
        self.text(18, 26, "FIRST PLAYER'S SCORE" if self.several else "SCORE", 10, SLATE)
        self.text(18, 58, number(score), 30, SNOW)
        mood = GREEN if reward > 0 else RED if reward < 0 else SLATE
        self.stat(182, "STEP", str(step), SNOW)
        self.stat(240, "REWARD", f"{'+' * (reward > 0)}{number(reward)}", mood)
        if not math.isnan(seen.value):
            self.stat(302, "VALUE", digits(seen.value, seen.value), SNOW)

    def bars(self, seen: Thought, chosen: Array, q_values: Array | None) -> float:
        """Draw a bar per action, scaled to all that was seen so far; return where they end. Beside
        shares of visits stand the values [A], where they are told."""
        kind, expected = seen.kind, seen.expected
        share = kind in ("visits", "policy")
        finite = expected[np.isfinite(expected)]
        self.low = 0.0 if share else min([self.low, *finite])
        self.high = max(finite) if kind == "visits" else 1.0 if share else max([self.high, *finite])
        right = 250 if q_values is None else 206  # end of the bars
        actions = np.arange(len(self.names))
        num_rows = min(len(actions), self.max_rows)
        if len(actions) > num_rows:
            best = np.where(actions == chosen, np.inf, np.nan_to_num(expected, nan=-np.inf))
            actions = np.argsort(-best, kind="stable")[:num_rows]
            actions = actions[best[actions] > -np.inf] if kind else actions
        pitch = min(24.0, (HEIGHT - 112) / max(num_rows, 1))
        for line, action in enumerate(actions):
            top, bottom = 102 + line * pitch, 102 + (line + 1) * pitch - 4
            middle = (top + bottom) / 2
            bar, ink = (self.inks[0], SNOW) if action == chosen else (self.inks[1], SLATE)
            self.text(18, middle, self.names[action], 12, ink, "lm")
            self.box(124, top, right, bottom, LINE if kind or action != chosen else bar, 3)
            if np.isfinite(expected[action]):
                part = (expected[action] - self.low) / ((self.high - self.low) or 1)
                self.box(124, top, 128 + (right - 128) * part, bottom, bar, 3)
                written = digits(expected[action], max(abs(self.low), abs(self.high)))
                if kind == "visits":
                    written = f"{expected[action]:.{int(expected[action] < 0.1)}%}"
                self.text(right + 52 if q_values is None else 248, middle, written, 12, ink, "rm")
                if q_values is not None and expected[action] > 0:
                    self.text(302, middle, signed(q_values[action]), 12, ink, "rm")
        return 102 + num_rows * pitch

    def trace(self, top: float, bottom: float) -> None:
        """Draw the value of the last moments as a curve."""
        title = "VALUE TO WHOEVER MOVES, OVER TIME" if self.several else "VALUE OVER TIME"
        self.text(18, top + 8, title, 10, SLATE)
        low, high = min(self.values), max(self.values)
        tall, wide = (bottom - top - 20) / ((high - low) or 1), 284 / TRACE
        curve = [
            self.at(18 + i * wide, bottom - (value - low) * tall)
            for i, value in enumerate(self.values, TRACE - len(self.values))
        ]
        floor = [(curve[-1][0], self.at(0, bottom)[1]), (curve[0][0], self.at(0, bottom)[1])]
        self.draw.polygon(curve + floor, LINE)
        self.draw.line(curve, BLUE, round(2 * self.unit))
        self.draw.circle(curve[-1], 3 * self.unit, AMBER)

    def stat(self, right: float, name: str, written: str, ink: Ink) -> None:
        self.text(right, 26, name, 10, SLATE, "rs")
        self.text(right, 58, written, 18, ink, "rs")

    def text(self, x: float, y: float, written: str, size: int, ink: Ink, anchor="ls") -> None:
        self.draw.text(self.at(x, y), written, ink, self.fonts[size], anchor)

    def box(self, left: float, top: float, right: float, bottom: float, ink: Ink, radius=0) -> None:
        corners = (self.at(left, top), self.at(right, bottom))
        self.draw.rounded_rectangle(corners, radius * self.unit, ink)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of the image at a place in the panel."""
        return self.left + x * self.unit, y * self.unit


class BoardCanvas(Canvas):
    """A frame of a board game that an agent plays with both colours.

    An agent values a board for the player who moves; over time it is shown as the first player
    sees it.
    """

    max_rows, max_zoom = 9, 1  # pictures of boards are large

    def __init__(self, picture: Array, spec: Spec, panel: bool) -> None:
        super().__init__(picture, spec, panel)
        self.game: BoardGame = spec.model

    def head(
        self, moment: Moment, seen: Thought, step: int, score: float, reward: float, over: str
    ) -> None:
        """Write who moves or who has won; and draw what was searched on the board."""
        shown, mover = moment.following if over else moment.step, int(moment.step.player[0])
        self.inks = SNOW, INKS[mover]
        label, player = "TO MOVE", int(shown.player[0])
        if shown.terminated[0] and score:
            label, player = "HAS WON", int(score < 0)
        written, ink = COLOURS[player].upper(), INKS[player]
        if shown.terminated[0] and not score:
            label, written, ink = "THE END", "A DRAW", SNOW
        self.text(18, 26, label, 10, SLATE)
        self.text(18, 58, written, 30, ink)
        self.stat(190, "MOVE", str(step + (not over)), SNOW)
        if over:
            self.values.extend([score] * int(shown.terminated[0]))
            return
        if not math.isnan(seen.value):
            self.stat(302, f"VALUE TO {written}", signed(seen.value), ink)
        self.values.append(-seen.value if mover else seen.value)
        if seen.kind in ("visits", "policy"):
            self.search(moment, np.nan_to_num(seen.expected, neginf=0))

    def search(self, moment: Moment, shares: Array) -> None:
        """Draw the shares of the moves [A] on the board, those of most visits last, with a ring
        around the one chosen. A stone that moves has a line from cell to cell."""
        from PIL import Image, ImageDraw, ImageFont

        places, pitch = self.game.places(moment.step.state[:1])
        places, pitch = 2 * places, 2 * pitch  # twice as large as in the end
        begin, end = places[:, 0], places[:, 1]
        moves = (begin != end).any(1)  # [A] bool
        middle = begin + ALONG * (end - begin)
        parts = np.sqrt(shares / max(shares.max(), 1e-9))
        reach = STONE * pitch * parts * np.where(moves, 0.5, 1)
        order = np.argsort(shares, kind="stable")
        order = order[np.isfinite(end[order, 0])].tolist()
        chosen, ink = int(moment.decision.action[0]), INKS[int(moment.step.player[0])]
        size = max(0.24 * pitch, 18)  # of type
        font, outline = ImageFont.load_default(size), max(2, round(0.03 * pitch))
        layer = Image.new("RGBA", [2 * side for side in self.picture.size])
        draw = ImageDraw.Draw(layer)
        for action in (action for action in order if moves[action]):
            line = SNOW if action == chosen else (*ink, CLEAR)
            edge = begin[action] + STONE * (end[action] - begin[action])
            draw.line((*edge, *end[action]), line, max(3, round(reach[action] / 4)))
        for action in order:
            place = tuple(middle[action].tolist())
            draw.circle(place, max(reach[action], 0.03 * pitch), (*ink, CLEAR))
            if action == chosen:
                draw.circle(place, reach[action] + outline, None, SNOW, outline)
            if reach[action] > 0.6 * size and shares[action] > 0.005:
                draw.text(place, f"{100 * shares[action]:.0f}", SNOW, font, "mm")
        small = layer.reduce(2)
        self.image.paste(small, (0, self.top), small)

    def trace(self, top: float, bottom: float) -> None:
        """Draw a bar for every move, up where the first player is ahead and down where the second
        is."""
        first, second = (colour.upper() for colour in COLOURS)
        self.text(18, top + 8, f"WHO IS AHEAD: {first} UP, {second} DOWN", 10, SLATE)
        low, high = top + 16, bottom
        zero, wide = (low + high) / 2, 284 / max(40, len(self.values))
        for i, value in enumerate(self.values):
            tip = zero - np.clip(value, -1, 1) * (high - low) / 2
            left = 18 + i * wide
            self.box(left, min(zero, tip), left + 0.8 * wide, max(zero, tip), INKS[value < 0])
        self.box(18, zero - 0.5, 302, zero + 0.5, SLATE)
