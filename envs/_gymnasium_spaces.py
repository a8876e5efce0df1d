"""What agents see of a Gymnasium world's observations, and choose of its actions: spaces that this
house knows, and how to come there."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from PIL import Image

from rlplay.core import Array, Mistake

if TYPE_CHECKING:
    from envs.gymnasium import Config


def shown(
    space: spaces.Space[Any], config: Config
) -> tuple[spaces.Space[Any], Callable[[Any], Any]]:
    """Return the space of what agents see in a world whose observations are of `space`, and how to
    see one that way."""
    return resized(*observed(*view(space, config), config), config)


def choices(space: spaces.Space[Any], config: Config) -> tuple[spaces.Space[Any], Any]:
    """Return the space of what agents choose from, counted from 0, and what the world calls 0."""
    if isinstance(space, spaces.Discrete):
        return spaces.Discrete(int(space.n)), int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec), space.start
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiDiscrete(np.full(space.shape, 2)), 0
    if isinstance(space, spaces.Box):
        return space, space.dtype.type(0)
    raise Mistake(
        f"{config.id} has {space} actions; only Discrete, MultiDiscrete, MultiBinary and Box can be"
        " played"
    )


def view(
    space: spaces.Space[Any], config: Config
) -> tuple[spaces.Space[Any], Callable[[Any], Any]]:
    """Return the space of what agents see, and how to see a world's observation that way: one part
    of a Dict or all as one vector, a Discrete counted from 0, several as the digits of one, a
    picture as [C, H, W]. A picture is a Box of three axes of which the last is 1, 3 or 4 long and
    the shortest: it is read as [H, W, C]."""
    key = config.observation_key
    pick: Callable[[Any], Any] = operator.itemgetter(key) if key else lambda seen: seen
    if isinstance(space, spaces.Dict):
        if not key and all(map(_plain, space.values())):
            whole = space
            vector: Any = spaces.flatten_space(whole)
            return vector, lambda seen: spaces.flatten(whole, seen)
        if key not in space.spaces:
            keys = ", ".join(space.spaces)
            raise Mistake(f"{config.id} shows a Dict: set env.observation_key to one of {keys}")
        space = space[key]
    elif key:
        raise Mistake(f"{config.id} does not show a Dict: leave env.observation_key out")
    if isinstance(space, spaces.Discrete):
        start = int(space.start)
        return spaces.Discrete(int(space.n)), lambda seen: pick(seen) - start
    if (digits := _digits(space)) is not None:
        sizes, starts = np.array(digits, np.int64).reshape(-1, 2).T
        if (total := math.prod(sizes.tolist())) > 2**62:
            raise Mistake(f"{config.id} shows {space}, too many states to be one Discrete space")
        worth = total // np.cumprod(sizes)  # of one more in each digit
        return spaces.Discrete(total), lambda seen: (_flat(pick(seen)) - starts) @ worth
    if not isinstance(space, spaces.Box):
        raise Mistake(
            f"{config.id} shows {space}; agents see only Box and Discrete, and what is made of"
            " Discrete parts"
        )
    shape = space.shape
    if len(shape) == 3 and shape[2] in (1, 3, 4) and shape[2] < min(shape[:2]):
        low, high = (np.moveaxis(bound, 2, 0) for bound in (space.low, space.high))
        picture = spaces.Box(low, high, dtype=space.dtype.type)
        return picture, lambda seen: np.moveaxis(pick(seen), 2, 0)
    return space, pick


def observed(
    space: spaces.Space[Any], view: Callable[[Any], Any], config: Config
) -> tuple[spaces.Space[Any], Callable[[Any], Any]]:
    """Return the same, of those numbers of a vector that the agent is to see."""
    kept = list(config.observed)
    if not kept:
        return space, view
    if not isinstance(space, spaces.Box) or len(space.shape) != 1 or max(kept) >= space.shape[0]:
        raise Mistake(f"env.observed {kept} are no numbers of {config.id}'s observations, {space}")
    seen = spaces.Box(space.low[kept], space.high[kept], dtype=space.dtype.type)
    return seen, lambda shown: np.asarray(view(shown))[kept]


def resized(
    space: spaces.Space[Any], view: Callable[[Any], Any], config: Config
) -> tuple[spaces.Space[Any], Callable[[Any], Any]]:
    """Return the same, of pictures [C, H, W] brought to the size that the agent is to see."""
    size = config.frame_size
    if not size:
        return space, view
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or space.dtype != np.uint8:
        raise Mistake(
            f"env.frame_size is for pictures of numbers from 0 to 255, and {config.id} shows"
            f" {space}: leave env.frame_size out"
        )
    form, area = (size, size), Image.Resampling.BOX
    picture = spaces.Box(0, 255, (space.shape[0], *form), np.uint8)
    return picture, lambda seen: np.array(
        [np.asarray(Image.fromarray(plane).resize(form, area)) for plane in view(seen)]
    )


def _plain(space: spaces.Space[Any]) -> bool:
    """Tell whether a space is of numbers that can stand in one vector with others."""
    if isinstance(space, spaces.Box):
        return len(space.shape) <= 1
    if isinstance(space, spaces.Dict):
        return all(map(_plain, space.values()))
    return isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary)


def _digits(space: spaces.Space[Any]) -> list[tuple[int, int]] | None:
    """Return the size and the first value of each number in a space made of Discrete parts, row by
    row; None for another space."""
    if isinstance(space, spaces.Discrete):
        return [(int(space.n), int(space.start))]
    if isinstance(space, spaces.MultiDiscrete):
        return list(zip(space.nvec.ravel().tolist(), space.start.ravel().tolist(), strict=True))
    if isinstance(space, spaces.MultiBinary):
        return [(2, 0)] * math.prod(space.shape)
    if isinstance(space, spaces.Tuple):
        parts = [_digits(part) for part in space]
        return None if None in parts else [digit for part in parts for digit in part or ()]
    return None


def _flat(seen: Any) -> Array:
    """Return the numbers in an observation made of Discrete parts, [D] int64."""
    if isinstance(seen, tuple):
        return np.concatenate([_flat(part) for part in seen])
    return np.ravel(seen).astype(np.int64)
