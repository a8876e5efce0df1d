"""What Gymnasium's toy worlds tell about themselves: their tables, and how to draw their states.

FrozenLake, CliffWalking and Taxi (Dietterich 2000) carry their transitions as `P`, as may an env of
a user: P[state][action] is a list of (probability, next state, reward, terminated). Blackjack has
no tables, and comes with the policy of Sutton & Barto 2018, example 5.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.toy_text import BlackjackEnv, CliffWalkingEnv, FrozenLakeEnv, TaxiEnv
from gymnasium.spaces import Discrete

from rlplay.core import Array, Layout, Mistake
from rlplay.model import Model

UP, RIGHT, DOWN, LEFT, STAY = (-1, 0), (0, 1), (1, 0), (0, -1), (0, 0)
BLACKJACK = (32, 11, 2)  # the player's sum, the dealer's card, a usable ace
PLACES = ("R", "G", "Y", "B")  # of a taxi's passengers


def tables(env: gymnasium.Env[Any, Any]) -> Model | None:
    """Return the exact model of an env with `P` and `initial_state_distrib`, else None. Raises
    Mistake where these are no decision process.

    States that an episode ends in, and never goes on from, have no actions; nor have the states of
    a taxi those that would change nothing, which its mask forbids.
    """
    world: Any = env.unwrapped
    outcomes, start = getattr(world, "P", None), getattr(world, "initial_state_distrib", None)
    seen, moves = world.observation_space, world.action_space
    if (seen, moves) != (env.observation_space, env.action_space):
        return None  # a wrapper shows another world than this
    if not (isinstance(seen, Discrete) and isinstance(moves, Discrete)) or start is None:
        return None
    if not isinstance(outcomes, Mapping | Sequence):
        return None
    if isinstance(world, TaxiEnv) and world.fickle_passenger:
        return None  # what the passenger does is not in the tables
    num_states, num_actions = int(seen.n), int(moves.n)
    try:
        rows = [
            (s, a, int(following) - int(seen.start), probability, reward, over)
            for s in range(num_states)
            for a in range(num_actions)
            for probability, following, reward, over in outcomes[s + seen.start][a + moves.start]
        ]
        table = np.array(rows, np.float64).reshape(-1, 6)
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise Mistake(
            f"the table P of {type(world).__name__} is not"
            f" P[state][action] = [(probability, next state, reward, terminated), ...]: {error!r}"
        ) from error
    if isinstance(world, TaxiEnv):
        legal = np.array([world.action_mask(s) for s in range(num_states)], bool)
        table = table[legal[tuple(table[:, :2].astype(int).T)]]
    whole = Model.of(num_states, num_actions, table, start)
    state, action = np.divmod(whole.pair, num_actions)
    following, over = whole.next_state, whole.terminated
    alive = whole.start > 0  # an episode can go on from here
    while not alive[(further := following[~over & alive[state]])].all():
        alive[further] = True
    ended = np.zeros(num_states, bool)
    ended[following[over]] = True
    left = ~(ended & ~alive)[state]
    columns = (state, action, following, whole.probability, whole.reward, over)
    return Model.of(num_states, num_actions, np.column_stack(columns)[left], whole.start)


def layout(env: gymnasium.Env[Any, Any]) -> Layout | None:
    """Return where the states of a toy world lie, or None for another world."""
    world: Any = env.unwrapped
    if isinstance(world, FrozenLakeEnv):
        letters = world.desc.astype("U1")
        return _map(letters, (LEFT, DOWN, RIGHT, UP))
    if isinstance(world, CliffWalkingEnv):
        letters = np.where(world._cliff, "C", "F")
        letters[np.unravel_index(world.start_state_index, world.shape)] = "S"
        letters[-1, -1] = "G"
        return _map(letters, (UP, RIGHT, DOWN, LEFT))
    if isinstance(world, TaxiEnv):
        row, column, passenger, goal = np.array([world.decode(s) for s in range(500)]).T
        stands = (*(f"at {place}" for place in PLACES), "aboard")
        return Layout(
            cells=np.stack([4 * passenger + goal, row, column], 1),
            panels=tuple(f"{stand}, to {place}" for stand in stands for place in PLACES),
            arrows=np.array([DOWN, UP, RIGHT, LEFT, STAY, STAY]),
            marks={
                s: PLACES[world.locs.index((row[s], column[s]))]
                for s in range(500)
                if (row[s], column[s]) in world.locs
            },
        )
    if isinstance(world, BlackjackEnv):
        total, card, ace = np.unravel_index(np.arange(np.prod(BLACKJACK)), BLACKJACK)
        cells = np.stack([ace, 21 - total, card - 1], 1)
        cells[(total < 12) | (total > 21) | (card < 1)] = -1
        return Layout(
            cells=cells,
            panels=("no usable ace", "usable ace"),
            axes=("player's sum", "dealer's card"),
            labels=(tuple(map(str, range(21, 11, -1))), ("A", *map(str, range(2, 11)))),
        )
    return None


def _map(letters: Array, moves: Sequence[tuple[int, int]]) -> Layout:
    """Return the layout of a world with a state for each cell of `letters` [H, W], F for floor."""
    cells = np.argwhere(letters != "")
    return Layout(
        cells=np.column_stack([np.zeros(len(cells), np.int64), cells]),
        arrows=np.array(moves),
        marks={s: str(letter) for s, letter in enumerate(letters.flat) if letter != "F"},
    )


def action_names(env: gymnasium.Env[Any, Any]) -> tuple[str, ...]:
    """Return what the actions of a toy world are called; empty for another world."""
    kinds = {
        FrozenLakeEnv: ("left", "down", "right", "up"),
        CliffWalkingEnv: ("up", "right", "down", "left"),
        TaxiEnv: ("south", "north", "east", "west", "pick up", "drop off"),
        BlackjackEnv: ("stick", "hit"),
    }
    return next((names for kind, names in kinds.items() if isinstance(env.unwrapped, kind)), ())


def policies(env: gymnasium.Env[Any, Any]) -> dict[str, Array]:
    """Return the policies that the literature evaluates in a toy world, [S, A] by name."""
    if not isinstance(env.unwrapped, BlackjackEnv):
        return {}
    total = np.arange(np.prod(BLACKJACK)) // (BLACKJACK[1] * BLACKJACK[2])
    return {"stick_on_20": np.stack([total >= 20, total < 20], 1).astype(np.float64)}
