"""One episode of play becomes a film: an mp4 to watch, an npz to study, a GIF for TensorBoard.

The film shows the game beside what the agent thinks of it: what it expects of every action, and
what came of the one it chose. Frame t is the moment before action t, so T actions make T + 1
frames. It knows no world and no agent, only what a Step, a Decision's notes and a Spec say.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from rlplay.core import Agent, Array, Env, Mistake, Range, Spec
from rlplay.palette import AMBER, BLUE, GREEN, LINE, NIGHT, RED, SLATE, SNOW, Ink, digits, number
from rlplay.play import Moment, play

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

HEIGHT, PANEL_WIDTH, MAX_ROWS = 420, 320, 18  # the smallest film; the most actions listed
SIZES = (10, 12, 18, 30)  # of type
TRACE = 120  # moments in the curve of values
CLIP_FRAMES, CLIP_HEIGHT, CLIP_MILLISECONDS = 60, 210, 80


@dataclass(frozen=True)
class Config:
    every: Annotated[int, Range(0)] = 0
    """Agent steps between two recordings during training; 0 records only at the end."""
    max_steps: Annotated[int, Range(0)] = 3000
    """Agent steps after which a recording is cut; 0 for no recordings."""
    seed: Annotated[int, Range(0, 2**31 - 1)] = 2_000_000
    """Seed of the recorded episode."""


@dataclass(frozen=True)
class Recording:
    """A finished recording; the npz lies beside the mp4."""

    path: Path  # of the mp4
    score: float  # of player 0, in the game's own points
    length: int  # agent steps
    clip_gif: bytes  # at most CLIP_FRAMES + 1 small pictures, the first and the last among them


def record(env: Env, agent: Agent, path: Path, config: Config, panel: bool = True) -> Recording:
    """Play one episode as well as the agent knows; write `path`.mp4 and `path`.npz at its end.

    `env` is a single one, made with `render=True`. Whatever interrupts leaves no file behind.
    Raises ValueError where there are several envs, or where the picture changes its size; Mistake
    where nothing is to be recorded.
    """
    if config.max_steps == 0:
        raise Mistake("there is nothing to record: add --recording.max-steps 1000")
    if env.spec.num_envs != 1:
        raise ValueError(f"one env can be recorded at a time, got {env.spec.num_envs}")
    step = env.reset(config.seed)
    canvas, clip = Canvas(env.render(), env.spec, panel), Clip()
    rows: list[dict[str, Array]] = []
    score = reward = 0.0
    half_video, half_numbers = (path.with_name(f".{path.stem}{end}") for end in (".mp4", ".npz"))
    try:
        with encoder(half_video, canvas.image.size, env.spec.frame_rate) as show:
            for moment in play(env, agent, step, explore=False):
                clip.add(canvas.picture)
                canvas.tell(moment, len(rows), score, reward)
                show(canvas.image)
                canvas.place(env.render())
                rows.append(row(moment))
                reward = float(moment.following.score[0, 0])
                score += reward
                if moment.following.done[0] or len(rows) == config.max_steps:
                    over = "GAME OVER" if moment.following.terminated[0] else "CUT SHORT"
                    canvas.tell(moment, len(rows), score, reward, over)
                    show(canvas.image)
                    break
        columns = {name: np.stack([line[name] for line in rows]) for name in rows[0]}
        columns |= {"seed": np.array(config.seed), "frame_rate": np.array(env.spec.frame_rate)}
        np.savez_compressed(half_numbers, allow_pickle=False, **columns)
        half_numbers.replace(path.with_suffix(".npz"))
        half_video.replace(path.with_suffix(".mp4"))
    finally:
        half_video.unlink(missing_ok=True)
        half_numbers.unlink(missing_ok=True)
    return Recording(path.with_suffix(".mp4"), score, len(rows), clip.gif(canvas.picture))


def row(moment: Moment) -> dict[str, Array]:
    """Return one line of the npz: the action, what came of it, and the agent's notes, copied."""
    following, decision = moment.following, moment.decision
    line = {f"note_{name}": note[0] for name, note in decision.notes.items()} | {
        "action": decision.action[0],
        "reward": following.reward[0, 0],
        "score": following.score[0, 0],
        "terminated": following.terminated[0],
        "truncated": following.truncated[0],
    }
    return {name: np.array(value) for name, value in line.items()}


@contextmanager
def encoder(path: Path, size: tuple[int, int], rate: float) -> Iterator[Callable[..., None]]:
    """Open an mp4 that every browser plays, and give the function that appends an image to it."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as film:
        stream = film.add_stream("libx264", rate=Fraction(rate).limit_denominator(1000))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "20", "preset": "veryfast"}

        def show(image: Image.Image) -> None:
            film.mux(stream.encode(av.VideoFrame.from_image(image)))

        yield show
        film.mux(stream.encode(None))


class Clip:
    """Small pictures spread evenly over an episode of unknown length, in bounded memory."""

    def __init__(self) -> None:
        self.pictures: list[Image.Image] = []
        self.seen, self.stride = 0, 1

    def add(self, picture: Image.Image) -> None:
        if self.seen % self.stride == 0:
            self.pictures.append(small(picture))
        self.seen += 1
        if len(self.pictures) > CLIP_FRAMES:
            self.pictures, self.stride = self.pictures[::2], self.stride * 2

    def gif(self, last: Image.Image) -> bytes:
        """Return the clip, ended by `last`, as a GIF that repeats for ever."""
        first, *others = [*self.pictures, small(last)]
        file = BytesIO()
        first.save(
            file, "GIF", save_all=True, append_images=others, duration=CLIP_MILLISECONDS, loop=0
        )
        return file.getvalue()


def small(picture: Image.Image) -> Image.Image:
    return picture.reduce(math.ceil(picture.height / CLIP_HEIGHT))


class Canvas:
    """One frame of the film: the game on the left and, if wanted, the agent's view beside it."""

    def __init__(self, picture: Array, spec: Spec, panel: bool) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.shape = tall, wide, _ = picture.shape
        self.zoom = max(1, min(math.ceil(0.95 * HEIGHT / tall), 4 * HEIGHT // wide))
        height, self.left = max(HEIGHT, tall * self.zoom), wide * self.zoom
        self.top = (height - tall * self.zoom) // 2
        self.unit = height / HEIGHT  # the panel is drawn in units of this many pixels
        width = self.left + (round(PANEL_WIDTH * self.unit) if panel else 0)
        self.image = Image.new("RGB", (width + width % 2, height + height % 2), NIGHT)
        self.draw = ImageDraw.Draw(self.image)
        self.fonts = {size: ImageFont.load_default(size * self.unit) for size in SIZES}
        self.panel = panel
        self.names = spec.action_names or tuple(map(str, range(spec.num_actions)))
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
        notes, legal = moment.decision.notes, moment.step.action_mask[0]
        kind = next((name for name in ("q_values", "policy") if name in notes), "")
        expected = np.where(legal, notes[kind][0] if kind else np.nan, np.nan)
        value = math.nan
        if "value" in notes:
            value = float(notes["value"][0])
        elif kind == "q_values":
            value = float(np.nanmax(expected))
        self.image.paste(NIGHT, (self.left, 0, *self.image.size))
        self.text(18, 26, "SCORE", 10, SLATE)
        self.text(18, 58, number(score), 30, SNOW)
        mood = GREEN if reward > 0 else RED if reward < 0 else SLATE
        self.stat(182, "STEP", str(step), SNOW)
        self.stat(240, "REWARD", f"{'+' * (reward > 0)}{number(reward)}", mood)
        if not math.isnan(value):
            self.stat(302, "VALUE", digits(value, value), SNOW)
        self.box(18, 72, 302, 73, LINE)
        titles = {"q_values": "VALUE OF EACH ACTION", "policy": "PROBABILITY OF EACH ACTION"}
        self.text(18, 92, titles.get(kind, "ACTIONS" if self.names else ""), 10, SLATE)
        self.text(302, 92, over, 12, AMBER, "rs")
        bottom = self.bars(expected, moment.decision.action[0], kind)
        self.values.append(value)
        if HEIGHT - bottom > 90 and not math.isnan(value):
            self.trace(bottom + 16, HEIGHT - 16)

    def bars(self, expected: Array, chosen: Array, kind: str) -> float:
        """Draw a bar per action, scaled to all that was seen so far; return where they end."""
        finite = expected[np.isfinite(expected)]
        self.low = 0.0 if kind == "policy" else min([self.low, *finite])
        self.high = 1.0 if kind == "policy" else max([self.high, *finite])
        actions = np.arange(len(self.names))
        if len(actions) > MAX_ROWS:
            best = np.where(actions == chosen, np.inf, np.nan_to_num(expected, nan=-np.inf))
            actions = np.argsort(-best, kind="stable")[:MAX_ROWS]
        pitch = min(24.0, (HEIGHT - 112) / max(len(actions), 1))
        for line, action in enumerate(actions):
            top, bottom = 102 + line * pitch, 102 + (line + 1) * pitch - 4
            bar, ink = (AMBER, SNOW) if action == chosen else (BLUE, SLATE)
            self.text(18, (top + bottom) / 2, self.names[action], 12, ink, "lm")
            self.box(124, top, 250, bottom, LINE if kind or action != chosen else bar, 3)
            if np.isfinite(expected[action]):
                share = (expected[action] - self.low) / ((self.high - self.low) or 1)
                self.box(124, top, 128 + 122 * share, bottom, bar, 3)
                written = digits(expected[action], max(abs(self.low), abs(self.high)))
                self.text(302, (top + bottom) / 2, written, 12, ink, "rm")
        return 102 + len(actions) * pitch

    def trace(self, top: float, bottom: float) -> None:
        """Draw the value of the last moments as a curve."""
        self.text(18, top + 8, "VALUE OVER TIME", 10, SLATE)
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


def tensorboard_image(writer: SummaryWriter, tag: str, encoded: bytes, step: int) -> None:
    """Show a PNG or GIF as it is among TensorBoard's images: torch's `add_video` needs a moviepy
    long gone."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import (
        Summary,  # pyright: ignore[reportAttributeAccessIssue] (protobuf makes it at run time)
    )

    width, height = Image.open(BytesIO(encoded)).size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encoded)
    summary = Summary(value=[Summary.Value(tag=tag, image=image)])
    writer._get_file_writer().add_summary(summary, step)
