"""One episode of play becomes a film: an mp4 to watch, an npz to study, a GIF for TensorBoard.

The film shows the game beside what the agent thinks of it: what it expects of every action, and
what came of the one it chose. Frame t is the moment before action t, so T actions make T + 1
frames. It knows no world and no agent, only what a Step, a Decision's notes and a Spec say.

The npz holds, by moment, [T] or [T, ...]: `action`, `reward`, `score`, `terminated`, `truncated`
and every note of the agent as `note_NAME`; and once `seed` and `frame_rate`. Of a game for several,
rewards and scores are the first player's, values those of the `player` who moves, and there is the
`action_mask`. Of a board game, `position` [T + 1] holds the boards, the last one too, `game` its
name and `action_names` those of its moves. All is read by numpy alone, without pickle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np

from rlplay.canvas import BoardCanvas, Canvas
from rlplay.core import Agent, Array, Env, Mistake, Range, Spec
from rlplay.game import COLOURS, BoardGame
from rlplay.play import Moment, play

if TYPE_CHECKING:
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

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
    result: str  # in words: the score, or who has won
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
    game = env.spec.model
    canvas_of = BoardCanvas if isinstance(game, BoardGame) else Canvas
    canvas, clip = canvas_of(env.render(), env.spec, panel), Clip()
    rows: list[dict[str, Array]] = []
    score = reward = 0.0
    following = step
    half_video, half_numbers = (path.with_name(f".{path.stem}{end}") for end in (".mp4", ".npz"))
    try:
        with encoder(half_video, canvas.image.size, env.spec.frame_rate) as show:
            for moment in play(env, agent, step, explore=False):
                clip.add(canvas.picture)
                canvas.tell(moment, len(rows), score, reward)
                show(canvas.image)
                canvas.place(env.render())
                rows.append(row(moment, env.spec))
                following = moment.following
                reward = float(following.score[0, 0])
                score += reward
                if following.done[0] or len(rows) == config.max_steps:
                    over = "GAME OVER" if following.terminated[0] else "CUT SHORT"
                    canvas.tell(moment, len(rows), score, reward, over)
                    show(canvas.image)
                    break
        columns = {name: np.stack([line[name] for line in rows]) for name in rows[0]}
        columns |= {"seed": np.array(config.seed), "frame_rate": np.array(env.spec.frame_rate)}
        if isinstance(game, BoardGame):
            last = np.array(following.state[:1])
            columns["position"] = np.concatenate([columns["position"], last])
            columns |= {"game": np.array(game.name), "action_names": np.array(game.action_names)}
        np.savez_compressed(half_numbers, allow_pickle=False, **columns)
        half_numbers.replace(path.with_suffix(".npz"))
        half_video.replace(path.with_suffix(".mp4"))
    finally:
        half_video.unlink(missing_ok=True)
        half_numbers.unlink(missing_ok=True)
    result = f"score {score:g}"
    if isinstance(game, BoardGame):
        result = outcome(score, bool(following.terminated[0]))
    gif = clip.gif(canvas.picture)
    return Recording(path.with_suffix(".mp4"), score, result, len(rows), gif)


def outcome(score: float, ended: bool) -> str:
    """Return in words how a board game came out, given the first player's score."""
    if not ended:
        return "undecided"
    if not score:
        return "a draw"
    loser = int(score > 0)
    return f"{COLOURS[1 - loser]}, moving {('second', 'first')[loser]}, wins"


def row(moment: Moment, spec: Spec) -> dict[str, Array]:
    """Return one line of the npz: the action, what came of it, and the agent's notes, copied."""
    following, decision = moment.following, moment.decision
    line = {f"note_{name}": note[0] for name, note in decision.notes.items()} | {
        "action": decision.action[0],
        "reward": following.reward[0, 0],
        "score": following.score[0, 0],
        "terminated": following.terminated[0],
        "truncated": following.truncated[0],
    }
    if spec.num_players > 1:
        line |= {"player": moment.step.player[0], "action_mask": moment.step.action_mask[0]}
    if isinstance(spec.model, BoardGame):
        line["position"] = moment.step.state[0]
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
