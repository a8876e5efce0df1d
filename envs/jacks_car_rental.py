"""Jack's car rental (Sutton & Barto 2018, example 4.2; with its changes, exercise 4.7).

Two locations with up to 20 cars each. Overnight Jack moves up to five cars from one to the other,
$2 each; by day he rents out what he has, $10 each. Customers and returns come as Poisson numbers,
and returned cars can be rented from the next day on. A state is the cars in the evening, first
location times 21 plus second. The book's discount, 0.9, is a setting of the agent.

The env draws customers, not rows of the tables: two ways to the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from scipy.special import gammainc

from rlplay.core import Array, Layout, Range
from rlplay.markov import MarkovEnv
from rlplay.model import Model
from rlplay.palette import AMBER, GREEN, LINE, NIGHT, RED, SLATE, SNOW

if TYPE_CHECKING:
    from PIL import ImageDraw

MAX_CARS, MAX_MOVED = 20, 5
REQUESTS, RETURNS = (3, 4), (3, 2)  # a day, at the first and second location
RENT, MOVING = 10, 2  # dollars a car
FREE_PARKING, PARKING = 10, 4  # exercise 4.7: cars that stay free, dollars for a second lot
SIZE = MAX_CARS + 1
WIDTH, HEIGHT = 720, 420  # of the picture, pixels


@dataclass(frozen=True)
class Config:
    name: Literal["jacks_car_rental"] = "jacks_car_rental"
    num_envs: Annotated[int, Range(1)] = 1
    """Rentals side by side."""
    modified: bool = False
    """As in exercise 4.7: one car a night goes from the first to the second location free, and a
    location that keeps more than 10 cars overnight pays $4."""
    max_steps: Annotated[int, Range(0)] = 100
    """Days after which an episode is truncated; 0 for never."""

    @property
    def world(self) -> str:
        return "jacks-car-rental" + "-modified" * self.modified

    def make(self, *, render: bool = False) -> JacksCarRental:
        """Build the rentals; both locations begin with 10 cars."""
        return JacksCarRental(self, render)

    def for_evaluation(self) -> Config:
        """Return itself: this world is scored as it is trained on."""
        return self


class JacksCarRental(MarkovEnv):
    """N rentals. Action a moves a - 5 cars from the first location to the second."""

    def __init__(self, config: Config, render: bool) -> None:
        first, second = np.divmod(np.arange(SIZE**2), SIZE)
        stay = np.zeros((SIZE**2, 2 * MAX_MOVED + 1))
        stay[:, MAX_MOVED] = 1
        super().__init__(
            tables(config.modified),
            config.num_envs,
            max_steps=config.max_steps,
            action_names=tuple(signed(a) for a in range(-MAX_MOVED, MAX_MOVED + 1)),
            layout=Layout(
                cells=np.stack([np.zeros(SIZE**2, np.int64), MAX_CARS - first, second], 1),
                axes=("cars at the first location", "cars at the second location"),
                labels=(
                    tuple(str(MAX_CARS - row) for row in range(SIZE)),
                    tuple(map(str, range(SIZE))),
                ),
            ),
            policies={"move_none": stay},
            frame_rate=2.0,
            draw=self._picture if render else None,
        )
        self.modified = config.modified
        self.day: dict[str, Array] = {}  # of env 0: what happened, [2] by location

    def follow(self, state: Array, action: Array, begins: Array) -> tuple[Array, Array, Array]:
        n = len(state)
        morning, cost = night(state, action, self.modified)
        requests, returns = (self.generator.poisson(mean, (n, 2)) for mean in (REQUESTS, RETURNS))
        rented = np.minimum(requests, morning)
        evening = np.minimum(morning - rented + returns, MAX_CARS)
        moved = (action[0] - MAX_MOVED) * np.array([-1, 1])
        self.day = {"moved": moved, "asked for": requests[0]}
        self.day |= {"rented": rented[0], "returned": returns[0]}
        reward = RENT * rented.sum(1) - cost
        return evening @ (SIZE, 1), reward.astype(np.float32), np.zeros(n, bool)

    def _picture(self, path: list[int]) -> Array:
        """Draw the two locations in the evening, and what happened since the one before."""
        from PIL import Image, ImageDraw, ImageFont

        image = Image.new("RGB", (2 * WIDTH, 2 * HEIGHT), NIGHT)  # twice as large, for smooth edges
        draw = ImageDraw.Draw(image)
        small, large = ImageFont.load_default(34), ImageFont.load_default(44)
        for place, cars in enumerate(divmod(path[-1], SIZE)):
            left = 40 + place * (WIDTH + 40)
            draw.text((left, 30), f"{('First', 'Second')[place]} location", SNOW, large)
            draw.text((left + WIDTH - 120, 36), f"{cars} cars", SLATE, small, anchor="ra")
            for k in range(MAX_CARS):
                x, y = left + 120 * (k % 5), 110 + 84 * (k // 5)
                draw.rounded_rectangle((x, y, x + 104, y + 68), 12, LINE)
                if k < cars:
                    car(draw, x + 52, y + 34)
            for line, (what, cars) in enumerate(self.day.items() if len(path) > 1 else ()):
                number, y = int(cars[place]), 470 + 52 * line
                draw.text((left, y), what, SLATE, small)
                text = signed(number) if what == "moved" else str(number)
                draw.text((left + 300, y), text, SNOW, small, anchor="ra")
        if len(path) > 1:
            earned = int(self._standing().reward[0, 0])
            text, ink = (f"earned ${earned}", GREEN) if earned >= 0 else (f"lost ${-earned}", RED)
            draw.text((40, 2 * HEIGHT - 100), text, ink, large)
        return np.array(image.reduce(2))


def signed(number: int) -> str:
    return f"{number:+d}" if number else "0"


def night(state: Array, action: Array, modified: bool) -> tuple[Array, Array]:
    """Return the cars of the morning after actions in states [M], [M, 2] int64, and what the night
    costs, [M] dollars."""
    cars, moved = np.stack(np.divmod(state, SIZE), 1), action - MAX_MOVED
    morning = np.minimum(cars + moved[:, None] * [-1, 1], MAX_CARS)
    cost = MOVING * np.abs(moved)
    if modified:
        cost = cost - MOVING * (moved > 0) + PARKING * (morning > FREE_PARKING).sum(1)
    return morning, cost


def tables(modified: bool) -> Model:
    """Return the exact model. Its rewards are what is earned on average by those days that lead
    from one number of cars to another."""
    num_actions = 2 * MAX_MOVED + 1
    state, action = np.mgrid[: SIZE**2, :num_actions].reshape(2, -1)
    moved, (first, second) = action - MAX_MOVED, np.divmod(state, SIZE)
    legal = (-second <= moved) & (moved <= first)
    morning, cost = night(state[legal], action[legal], modified)
    likely, rented = zip(*map(day, REQUESTS, RETURNS), strict=True)
    one, two = morning.T
    probability = likely[0][one][:, :, None] * likely[1][two][:, None, :]  # [pairs, 21, 21]
    reward = RENT * (rented[0][one][:, :, None] + rented[1][two][:, None, :]) - cost[:, None, None]
    return Model(
        SIZE**2,
        num_actions,
        offsets=np.concatenate([[0], np.cumsum(legal)]) * SIZE**2,
        next_state=np.tile(np.arange(SIZE**2, dtype=np.int32), len(one)),
        probability=probability.ravel(),
        reward=reward.ravel(),
        terminated=np.zeros(probability.size, bool),
        start=(np.arange(SIZE**2) == MAX_CARS // 2 * (SIZE + 1)).astype(np.float64),
    )


def day(requests: float, returns: float) -> tuple[Array, Array]:
    """Return for one location, by the cars of the morning and of the evening, [21, 21], how likely
    that is, and how many cars are then rented on average."""
    likely, rented = np.zeros((2, SIZE, SIZE))
    for morning in range(SIZE):
        for out, chance in enumerate(capped(requests, morning)):
            evening = likely[morning, morning - out :], rented[morning, morning - out :]
            ways = chance * capped(returns, MAX_CARS - morning + out)
            evening[0][:] += ways
            evening[1][:] += ways * out
    return likely, rented / likely


def capped(mean: float, most: int) -> Array:
    """Return the probabilities of 0..most of a Poisson number of which no more than `most` count.
    They sum to 1: the last one is that of all the rest."""
    below = [math.exp(-mean) * mean**k / math.factorial(k) for k in range(most)]
    return np.array([*below, gammainc(most, mean) if most else 1.0])


def car(draw: ImageDraw.ImageDraw, x: float, y: float) -> None:
    """Draw a car seen from the side, its middle at (x, y)."""
    draw.rounded_rectangle((x - 22, y - 20, x + 20, y + 6), 10, AMBER)
    draw.rounded_rectangle((x - 38, y - 6, x + 38, y + 12), 8, AMBER)
    for wheel in (x - 20, x + 20):
        draw.ellipse((wheel - 9, y + 4, wheel + 9, y + 22), NIGHT, SLATE, 3)
