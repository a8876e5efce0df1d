"""Bandits: k arms and one question, which of them pays best (Sutton & Barto 2018, chapter 2).

One env is one independent run, so the 10-armed testbed of 2000 runs is `num_envs: 2000`. Env i
faces problem i of `problem_seed`, however many envs there are and whatever `reset` is told; rewards
and the walks of moving arms come from the seed of `reset`. All envs pull in step, so their episodes
end together. It knows nothing of how arms are chosen.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from copy import copy
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal

import numpy as np
from gymnasium.spaces import Box, Discrete
from numba import njit

from rlplay.core import Array, Mistake, Range, Spec, State, Step, check_action
from rlplay.palette import AMBER, BLUE, GREEN, LINE, NIGHT, RED, SLATE, SNOW, Ink, number

WIDTH, HEIGHT = 640, 420  # of the picture
KEPT = ("time", "position", "last", "mean", "best", "observation", "order", "count", "paid",
        "optimal", "regret")  # fmt: skip


@dataclass(frozen=True)
class Config:
    name: Literal["bandit"] = "bandit"
    num_envs: Annotated[int, Range(1)] = 1
    """Independent runs side by side."""
    num_arms: Annotated[int, Range(2)] = 10
    """Arms of each run, k; where `arms` lists them, there are as many as it lists."""
    reward: Literal["gaussian", "bernoulli"] = "gaussian"
    """What a pull pays: the arm's mean and noise, or 1 with the arm's probability, else 0."""
    reward_std: Annotated[float, Range(0)] = 1.0
    """Standard deviation of Gaussian rewards around their mean."""
    arms: tuple[float, ...] = ()
    """Mean reward of each arm, the same in every env; empty to draw them, Gaussian ones from
    N(arm_mean, arm_std), Bernoulli ones uniformly from 0 to 1."""
    arm_mean: float = 0.0
    """Mean of the drawn means of Gaussian arms."""
    arm_std: Annotated[float, Range(0)] = 1.0
    """Standard deviation of the drawn means of Gaussian arms; 0 for arms that begin equal."""
    change: Literal["none", "random_walk", "abrupt"] = "none"
    """How the means of the arms move: never, by a small random step each pull, or all drawn anew
    now and then."""
    walk_scale: Annotated[float, Range(0)] = 0.01
    """Standard deviation of each step of a random walk."""
    change_every: Annotated[int, Range(1)] = 500
    """Pulls between two abrupt changes."""
    contexts: Literal["none", "linear", "digits"] = "none"
    """What is seen before each pull: nothing; random features x, arm a paying x.theta_a and noise
    for a hidden unit vector theta_a; or a handwritten digit, whose own arm pays 1."""
    num_features: Annotated[int, Range(1)] = 5
    """Length of x and theta_a."""
    num_problems: Annotated[int, Range(0)] = 0
    """Different problems; env i faces problem i modulo so many. 0 for one for each env."""
    problem_seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """Which arms are drawn: env i faces problem i of this seed."""
    max_steps: Annotated[int, Range(1)] = 1000
    """Pulls after which an episode is truncated; the next one is about the same arms."""

    @property
    def world(self) -> str:
        return "bandit" if self.contexts == "none" else f"{self.contexts}-bandit"

    def make(self, *, render: bool = False) -> Bandits:
        """Build the arms. Raises Mistake where the settings contradict each other."""
        if sentence := self._mistake():
            raise Mistake(sentence)
        return Bandits(self)

    def _mistake(self) -> str:
        arms, bernoulli = self.arms, self.reward == "bernoulli"
        if len(arms) == 1:
            return "a bandit needs at least 2 arms, and env.arms lists 1"
        for arm in arms:
            if bernoulli and not 0 <= arm <= 1:
                return f"Bernoulli env.arms are probabilities from 0 to 1, not {arm:g}"
            if not math.isfinite(arm):
                return f"env.arms must be finite numbers, not {arm}"
        if self.change == "random_walk" and bernoulli:
            return "probabilities cannot walk at random; set env.change to abrupt"
        if self.change == "abrupt" and arms:
            return "an abrupt change draws all arms anew; leave env.arms out"
        if self.contexts != "none" and (arms or self.change != "none"):
            return f"arms with {self.contexts} contexts are not listed, nor do they move; leave" + (
                " env.arms out" if arms else " env.change out"
            )
        if self.contexts == "linear" and bernoulli:
            return "linear contexts have Gaussian rewards; leave env.reward out"
        if self.contexts == "digits" and self.num_arms != 10:
            return f"there are 10 digits; set env.num_arms to 10, not {self.num_arms}"
        return ""

    def for_evaluation(self) -> Config:
        """Return the same problems, in whatever number of envs, so that the learner of problem i
        meets it again."""
        return replace(self, num_problems=self.num_problems or self.num_envs)


class Bandits:
    """N bandits of k arms, pulled in step."""

    def __init__(self, config: Config) -> None:
        self.config = config
        n, k = config.num_envs, len(config.arms) or config.num_arms
        space = Discrete(1)
        if config.contexts == "linear":
            space = Box(-np.inf, np.inf, (config.num_features,), np.float32)
        elif config.contexts == "digits":
            space = Box(0, 1, (64,), np.float32)
        self.spec = Spec(n, space, Discrete(k), frame_rate=10, exact_resume=True)
        self.bernoulli = config.reward == "bernoulli" or config.contexts == "digits"
        # Drawn env by env, so that the first arms are the same however many envs follow. The seed
        # is named, so that it never repeats the random numbers of the rewards.
        problems = np.random.default_rng([*b"bandit", config.problem_seed])
        count = config.num_problems or n
        faced = np.arange(n) % count  # [N] int64, the problem of each env
        self.start = np.zeros((n, k))  # [N, k] float64, the means with which an episode begins
        self.theta = np.zeros((n, k, config.num_features))  # [N, k, d] float64, of linear arms
        if config.contexts == "linear":
            theta = problems.standard_normal((count, k, config.num_features))
            self.theta = (theta / np.linalg.norm(theta, axis=2, keepdims=True))[faced]
        elif config.arms:
            self.start[:] = config.arms
        else:
            self.start = self._drawn(problems, (count, k))[faced]
        self.bound = None  # of the regret, as the factors of ln n and of 1, [N] float64 each
        if config.reward == "bernoulli" and config.change == config.contexts == "none":
            gap = self.start.max(1, keepdims=True) - self.start
            inverse = np.divide(1, gap, out=np.zeros_like(gap), where=gap > 0)
            self.bound = 8 * inverse.sum(1), (1 + math.pi**2 / 3) * gap.sum(1)
        # What every step has in common, made once; nobody can write into it.
        self.quiet = Step.at(np.zeros(n, np.int64), k)
        self.full, nothing = np.ones(n, bool), np.full(n, np.nan)
        for array in (*self.quiet[1:8], self.full, nothing):  # torch wants a writable observation
            array.flags.writeable = False
        names = ("reward", "optimal_action", "cumulative_regret", "cumulative_regret_bound")
        self.unmeasured = dict.fromkeys(names[: 3 + (self.bound is not None)], nothing)
        self.observation = self.quiet.observation
        self.order = np.zeros((n, 0), np.int16)  # [N, 1797] int16, how each env shuffled the digits
        self.past: deque[tuple[int, int]] = deque(maxlen=15)  # digits that env 0 saw, and its pulls
        self.limits: list[float] = []  # the least and the largest reward drawn so far

    def _drawn(self, generator: np.random.Generator, shape: int | tuple[int, int]) -> Array:
        if self.bernoulli:
            return generator.random(shape)
        return self.config.arm_mean + self.config.arm_std * generator.standard_normal(shape)

    def reset(self, seed: int) -> Step:
        self.generator = np.random.default_rng(operator.index(seed))
        self.position = 0
        self.paid = self.optimal = np.zeros(self.spec.num_envs)
        self.past.clear()
        self._begin()
        self._look()
        return self._step()

    def step(self, action: Array) -> Step:
        action = check_action(action, self.spec)
        if self.time == self.config.max_steps:
            self._begin()
            return self._step()
        if self.config.contexts == "digits":
            self.past.append((self.order[0, self.position - 1], action[0]))
        self.paid, self.optimal, self.regret = pull(
            action, self.mean, self.best, self.regret, self.bernoulli, self.config.reward_std,
            self.generator,
        )  # fmt: skip
        self.time += 1
        self.last = int(action[0])
        self.count[self.last] += 1
        self._look()
        self._move()
        return self._step()

    def _begin(self) -> None:
        """Begin an episode. A context that was already shown is still to be answered."""
        self.time, self.last = 0, -1
        self.count = np.zeros(self.spec.num_actions, np.int64)  # [k] int64, pulls in env 0
        self.regret = np.zeros(self.spec.num_envs)
        if self.config.contexts == "none":
            self.mean, self.best = self.start.copy(), self.start.max(1)

    def _move(self) -> None:
        """Move the arms on to the next pull."""
        config = self.config
        if config.change == "random_walk":
            self.mean += config.walk_scale * self.generator.standard_normal(self.mean.shape)
            self.best = self.mean.max(1)
        elif config.change == "abrupt" and self.time % config.change_every == 0:
            self.mean = self._drawn(self.generator, self.mean.shape)
            self.best = self.mean.max(1)

    def _look(self) -> None:
        """Show the next contexts, if there are any; every env sees each digit once a shuffle."""
        if self.config.contexts == "linear":
            self.observation, self.mean, self.best = features(self.theta, self.generator)
        elif self.config.contexts == "digits":
            pictures, classes = digits()
            if self.position % len(pictures) == 0:
                self.position = 0
                order = np.arange(len(pictures), dtype=np.int16)
                shuffled = np.tile(order, (self.spec.num_envs, 1))
                self.order = self.generator.permuted(shuffled, axis=1)
            shown = self.order[:, self.position]
            self.position += 1
            self.observation = pictures[shown]
            self.mean, self.best = np.eye(10)[classes[shown]], np.ones(self.spec.num_envs)

    def _step(self) -> Step:
        """Return the step at which the envs stand."""
        step = self.quiet._replace(observation=self.observation, measures=self.unmeasured)
        if self.time == 0:
            return step
        reward = self.paid.astype(np.float32)[:, None]
        measures = {
            "reward": self.paid,
            "optimal_action": self.optimal,
            "cumulative_regret": self.regret,
        }
        if self.bound is not None:
            of_log, of_one = self.bound
            measures["cumulative_regret_bound"] = of_log * math.log(self.time) + of_one
        if self.time == self.config.max_steps:
            step = step._replace(truncated=self.full)
        return step._replace(reward=reward, score=reward, measures=measures)

    def state_dict(self) -> State:
        own = {name: copy(getattr(self, name)) for name in KEPT}
        return {**own, "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: State) -> Step:
        self.generator.bit_generator.state = state["generator"]
        for name in KEPT:
            setattr(self, name, copy(state[name]))
        self.past.clear()
        return self._step()

    def close(self) -> None:
        return None

    def render(self) -> Array:
        """Return env 0 as it stands after its last pull, [420, 640, 3] uint8."""
        page = Page()
        page.stat(18, "PULLS", f"{self.time:,}")
        if self.time:
            paid, right = float(self.paid[0]), self.optimal[0] == 1
            page.stat(118, "LAST ARM", str(self.last), GREEN if right else AMBER)
            page.stat(228, "IT PAID", f"{'+' * (paid > 0)}{number(paid)}")
            page.stat(338, "REGRET SO FAR", number(float(self.regret[0])))
        if self.config.contexts == "digits":
            draw_digits(page, self.observation[0], self.past)
            return page.picture()
        if self.config.contexts == "linear":
            draw_features(page, self.observation[0])
        mean, spread = self.mean[0], 0.0 if self.bernoulli else 3 * self.config.reward_std
        # What was paid for the features before these says nothing of them.
        paid = self.paid[:1] if self.time and self.config.contexts == "none" else np.empty(0)
        room = spread or 1.0
        ends = (0.0, 1.0) if self.bernoulli else (mean.min() - room, mean.max() + room)
        seen = [*self.limits, *ends, *paid]
        self.limits = [min(seen), max(seen)]
        draw_arms(page, mean, self.count, self.last, paid, spread, self.limits)
        return page.picture()


@njit(cache=True)
def pull(action, mean, best, regret, bernoulli, reward_std, generator):
    """Pull arm `action` [N] of means [N, k], the best of them `best` [N]; return what it paid,
    whether it was the best, and the regret including it: [N] float64 each."""
    num_envs = len(action)
    paid, optimal, total = np.empty(num_envs), np.empty(num_envs), np.empty(num_envs)
    for i in range(num_envs):
        expected = mean[i, action[i]]
        if bernoulli:
            paid[i] = 1.0 if generator.random() < expected else 0.0
        else:
            paid[i] = expected + reward_std * generator.standard_normal()
        optimal[i] = 1.0 if expected == best[i] else 0.0
        total[i] = regret[i] + (best[i] - expected)
    return paid, optimal, total


@njit(cache=True)
def features(theta, generator):
    """Draw x from N(0, 1) for arms `theta` [N, k, d]; return x [N, d] float32, the means x.theta_a
    [N, k] float64, which are N(0, 1) as in the testbed, and the best of them [N] float64."""
    num_envs, num_arms, size = theta.shape
    x, mean = np.empty((num_envs, size), np.float32), np.zeros((num_envs, num_arms))
    best = np.full(num_envs, -np.inf)
    for i in range(num_envs):
        for j in range(size):
            x[i, j] = generator.standard_normal()
        for a in range(num_arms):
            for j in range(size):
                mean[i, a] += x[i, j] * theta[i, a, j]
            best[i] = max(best[i], mean[i, a])
    return x, mean, best


@cache
def digits() -> tuple[Array, Array]:
    """Return the 1797 handwritten digits of scikit-learn (Alpaydin & Kaynak 1998), [1797, 64]
    float32 from 0 to 1, and their classes [1797] int64."""
    from sklearn.datasets import load_digits

    data: Any = load_digits()
    return (data.data / 16).astype(np.float32), data.target


class Page:
    """A dark page, drawn at twice its size so that edges come out smooth."""

    def __init__(self) -> None:
        from PIL import Image, ImageDraw, ImageFont

        self.image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), NIGHT)
        self.draw = ImageDraw.Draw(self.image)
        self.font = cache(lambda size: ImageFont.load_default(2 * size))

    def text(self, x: float, y: float, written: str, size: int, ink: Ink, anchor="ls") -> None:
        self.draw.text((2 * x, 2 * y), written, ink, self.font(size), anchor)

    def box(self, left: float, top: float, right: float, bottom: float, ink: Ink, radius=0) -> None:
        corners = (2 * left, 2 * top, 2 * right, 2 * bottom)
        self.draw.rounded_rectangle(corners, 2 * radius, ink)

    def stat(self, left: float, name: str, written: str, ink: Ink = SNOW) -> None:
        self.text(left, 26, name, 10, SLATE)
        self.text(left, 50, written, 18, ink)

    def gray(self, pixels: Array, left: int, top: int, size: int) -> None:
        """Draw pixels [64] from 0 to 1 as a square."""
        from PIL import Image

        shades = np.asarray(NIGHT) + pixels.reshape(8, 8, 1) * (np.asarray(SNOW) - NIGHT)
        image = Image.fromarray(shades.astype(np.uint8))
        image = image.resize((2 * size, 2 * size), Image.Resampling.NEAREST)
        self.image.paste(image, (2 * left, 2 * top))

    def picture(self) -> Array:
        return np.asarray(self.image.reduce(2))


def draw_arms(
    page: Page,
    mean: Array,
    count: Array,
    last: int,
    paid: Array,
    spread: float,
    limits: list[float],
) -> None:
    """Draw what each arm may pay, as a violin or, with `spread` 0, as a bar of its probability; its
    pulls below; and what the last pull paid, if `paid` has it."""
    left, right, top, bottom, floor = 46, WIDTH - 16, 84, 316, 388
    low, high = limits
    column = (right - left) / len(mean)

    def height(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    tick = nice((high - low) / 5)
    for i in range(math.ceil(low / tick), math.floor(high / tick + 1e-9) + 1):
        y = height(i * tick)
        page.box(left, y - 0.5, right, y + 0.5, LINE)
        page.text(left - 8, y, number(i * tick), 10, SLATE, "rm")
    page.text(left, 72, "WHAT EACH ARM PAYS", 10, SLATE)
    page.text(right, 72, "best mean", 10, GREEN, "rs")
    page.text(left - 8, (bottom + floor) / 2 + 10, "pulls", 10, SLATE, "rm")
    for arm, expected in enumerate(mean):
        middle, half = left + (arm + 0.5) * column, min(0.42 * column, 34)
        ink = AMBER if arm == last else BLUE
        if spread:
            z = np.linspace(-3, 3, 61)
            wide, tall = half * np.exp(-(z**2) / 2), expected + z * spread / 3
            y = [height(value) for value in tall]
            edge = [(2 * (middle + w), 2 * v) for w, v in zip(wide, y, strict=True)]
            other = [(2 * (middle - w), 2 * v) for w, v in zip(wide, y, strict=True)]
            page.draw.polygon(edge + other[::-1], ink)
        else:
            page.box(middle - half, height(expected), middle + half, bottom, ink, 3)
        best = GREEN if expected == mean.max() else SNOW
        y = height(expected)
        page.box(middle - half, y - 1.5, middle + half, y + 1.5, best, 1)
        share = count[arm] / max(1, count.max())
        page.box(middle - half, floor - 40 * share, middle + half, floor, ink if share else LINE, 2)
        if column >= 24:
            written = f"{count[arm]:,}"
            page.text(middle, floor - 40 * share - 5, written, 10, SLATE, "ms")
            page.text(middle, floor + 18, str(arm), 12, SNOW if arm == last else SLATE, "ms")
        for y in map(height, paid if arm == last else ()):
            page.draw.circle((2 * middle, 2 * y), 14, NIGHT)
            page.draw.circle((2 * middle, 2 * y), 10, SNOW)


def draw_features(page: Page, x: Array) -> None:
    """Draw the features as a row of cells, amber above 0 and blue below."""
    page.text(WIDTH - 16, 26, "FEATURES", 10, SLATE, "rs")
    side = min(16.0, 160 / len(x))
    for j, value in enumerate(x):
        right = WIDTH - 16 - (len(x) - 1 - j) * side
        share = min(1.0, abs(float(value)) / 2)
        shade = np.asarray(NIGHT) + share * (np.asarray(AMBER if value > 0 else BLUE) - NIGHT)
        page.box(right - side + 1, 34, right, 50, (int(shade[0]), int(shade[1]), int(shade[2])))


def draw_digits(page: Page, pixels: Array, past: deque[tuple[int, int]]) -> None:
    """Draw the digit to be read now, and how the last ones were read."""
    pictures, classes = digits()
    page.text(18, 84, "WHICH DIGIT IS THIS?", 10, SLATE)
    page.gray(pixels, 18, 96, 304)
    page.text(344, 84, "READ SO FAR, NEWEST FIRST", 10, SLATE)
    for i, (shown, arm) in enumerate(reversed(past)):
        x, y = 344 + i % 5 * 57, 96 + i // 5 * 104
        right = classes[shown] == arm
        ink = GREEN if right else RED
        page.box(x - 2, y - 2, x + 49, y + 49, ink, 2)
        page.gray(pictures[shown], x, y, 48)
        page.text(x, y + 70, str(arm), 18, ink)
        if not right:
            page.text(x + 48, y + 70, f"is {classes[shown]}", 10, SLATE, "rs")


def nice(span: float) -> float:
    """Return the smallest of 1, 2 and 5 times a power of ten that is at least `span`."""
    power = 10.0 ** math.floor(math.log10(span))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span * (1 - 1e-9))
