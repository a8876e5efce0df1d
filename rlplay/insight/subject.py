"""What is explained: a network that judges pictures, its encoder, and pictures to judge; of a run
that has learned to tell classes apart, of one whose agent plays from pictures, or, with no more
than its encoder, of any other perception task.

The pictures of a task are those kept for the test. An agent plays an episode and is asked about
what it saw. All is computed in float32: slopes of bfloat16 are mostly noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rlplay import lesson, run
from rlplay.core import Array, Mistake
from rlplay.insight.saliency import margin
from rlplay.nets.encoders import Encoder
from rlplay.perception.classify import Classify
from rlplay.play import Moment, play

Announce = Callable[[str], None]


class Episode(NamedTuple):
    """What an agent saw and did."""

    moments: list[Moment]
    screens: Array  # [T, H, W, 3] uint8, as a person sees them


@dataclass(frozen=True, eq=False)
class Subject:
    name: str
    """The run's."""
    about: str
    """What it is and how long it was trained, in words."""
    step: int
    """Agent steps, or updates, that it was trained for."""
    encoder: Encoder
    pictures: Array
    """[n, C, H, W] uint8, to look at."""
    num_moments: int
    """The channels of a picture are of so many moments, oldest first."""
    judge: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    """From pictures [B, C, H, W], 0..1, to the scores of classes or actions [B, A], and the values
    [B] of an agent; gradients pass. None where nothing is chosen."""
    names: tuple[str, ...] = ()
    """Of the A classes or actions."""
    labels: Array | None = None
    """[n] int64, the right classes."""
    others: Array | None = None
    """[m, C, H, W] uint8, pictures to prepare an attack with, none of which is tested."""
    num_first: int = 0
    """So many pictures begin an episode, and are partly black: moments before it."""
    player: run.Player | None = None
    episode: Episode | None = None

    @property
    def device(self) -> torch.device:
        return next(self.encoder.parameters()).device

    def tensor(self, pictures: Array) -> Tensor:
        """Return pictures uint8 as the network sees them, 0..1."""
        return torch.from_numpy(pictures).to(self.device, torch.float32) / 255

    def scores(self, pictures: Tensor) -> Tensor:
        """Return the scores [B, A] of pictures [B, C, H, W], 0..1."""
        assert self.judge is not None, "it chooses nothing"
        return self.judge(pictures)[0]

    @torch.no_grad()
    def chosen(self, pictures: Array) -> Array:
        """Return what is chosen [n] int64 for pictures [n, C, H, W] uint8."""
        parts = [self.scores(part).argmax(1) for part in self.tensor(pictures).split(256)]
        return torch.cat(parts).cpu().numpy()

    def choice(self, number: int) -> Callable[[Tensor], Tensor]:
        """Return how clearly one class or action is chosen, as a judgement [B, 1]."""

        def judged(pictures: Tensor) -> Tensor:
            scores = self.scores(pictures)
            index = torch.full((len(scores),), number, device=scores.device)
            return margin(scores, index)[:, None]

        return judged

    def both(self, number: int) -> Callable[[Tensor], Tensor]:
        """Return how clearly an action is chosen, and the value, as a judgement [B, 2]."""

        def judged(pictures: Tensor) -> Tensor:
            assert self.judge is not None, "it chooses nothing"
            scores, value = self.judge(pictures)
            index = torch.full((len(scores),), number, device=scores.device)
            return torch.stack([margin(scores, index), value], 1)

        return judged


def load(
    found: run.Run, which: str, seed: int, max_steps: int, num_pictures: int, announce: Announce
) -> Subject:
    """Load what a run has learned, of its best or newest checkpoint or of the one called `which`,
    and find pictures: at most so many, or what an agent sees in an episode of at most so many
    steps. Raises Mistake where there is nothing to explain."""
    if found.is_lesson:
        return of_task(found, which, seed, num_pictures, announce)
    return of_agent(found, which, seed, max_steps, announce)


def of_task(
    found: run.Run, which: str, seed: int, num_pictures: int, announce: Announce
) -> Subject:
    learning = lesson.load(found, which, announce, "--precision=float32")
    task, source = learning.task, learning.source
    task.eval().requires_grad_(False)
    tested = sample(source.splits["test"], num_pictures, seed)
    arrays = {name: source.arrays[name][tested] for name in ("picture", "label")
              if name in source.arrays}  # fmt: skip
    num_moments = learning.lesson.data.num_stacked if learning.lesson.data.name == "frames" else 1
    subject = Subject(
        name=found.name,
        about=f"{learning.lesson.task.name} on {source.name}, after {learning.updates:,} updates",
        step=learning.updates,
        encoder=task.encoder,
        pictures=arrays["picture"],
        num_moments=num_moments,
    )
    if type(task) is not Classify:  # one that reads variables chooses among no classes either
        return subject

    def judge(pictures: Tensor) -> tuple[Tensor, Tensor]:
        scores = task(pictures)
        return scores, scores.amax(1)

    return replace(
        subject,
        judge=judge,
        names=source.classes,
        labels=arrays["label"],
        others=source.arrays["picture"][sample(source.splits["validation"], num_pictures, seed)],
    )


def sample(index: Array, most: int, seed: int) -> Array:
    """Return at most so many of some numbers, in order."""
    if len(index) <= most:
        return index
    return np.sort(np.random.default_rng([*b"explain", seed]).choice(index, most, replace=False))


def of_agent(found: run.Run, which: str, seed: int, max_steps: int, announce: Announce) -> Subject:
    experiment = found.experiment()
    with run.single_env(experiment) as env:
        spec = env.spec
    settings: Any = experiment.agent
    shape = spec.observation_space.shape or ()
    agent_on = f"{found.name} has trained {settings.name} on {experiment.env.world}"
    if len(shape) != 3 or spec.observation_space.dtype != np.uint8:
        raise Mistake(f"{agent_on}, which shows no pictures: name a run that learned from pictures")
    if not hasattr(settings, "encoder") or not spec.num_actions:
        raise Mistake(
            f"{agent_on}, and only dqn, pqn, ppo, a2c and reinforce with single actions can be"
            " explained: name another run"
        )
    if getattr(getattr(settings, "recurrent", None), "name", "none") != "none":
        raise Mistake(
            f"{agent_on} with memory, and only what depends on one picture can be explained: name"
            " another run"
        )
    player = run.load_player(found, which, announce, ["--agent.precision=float32"])
    agent: Any = player.agent
    for part in vars(agent).values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    episode = watch(player, seed, max_steps)
    names = spec.action_names or tuple(map(str, range(spec.num_actions)))
    seen = np.concatenate([moment.step.observation for moment in episode.moments])
    return Subject(
        name=found.name,
        about=f"{settings.name} plays {experiment.env.world}, after {player.num_steps:,} agent"
        " steps",
        step=player.num_steps,
        encoder=agent.encoder,
        pictures=seen,
        num_moments=spec.num_stacked,
        judge=agent.scores,
        names=names,
        others=seen,
        num_first=min(spec.num_stacked - 1, len(seen) - 1),
        player=player,
        episode=episode,
    )


def watch(player: run.Player, seed: int, max_steps: int) -> Episode:
    """Let an agent play an episode as well as it knows, no longer than `max_steps`."""
    moments, screens = [], []
    with run.single_env(player.experiment, render=True) as env:
        step = env.reset(seed)
        screens.append(np.array(env.render()))
        for moment in islice(play(env, player.agent, step, explore=False), max_steps):
            moments.append(moment)
            if moment.following.done[0]:
                break
            screens.append(np.array(env.render()))
    return Episode(moments, np.stack(screens[: len(moments)]))
