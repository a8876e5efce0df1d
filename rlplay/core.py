"""The nouns of rlplay: what an env shows, what an agent decides, and what both promise.

Shape letters, fixed here once: T moments, N envs side by side, P players, A actions,
B batch, C H W.
There are always N envs; one env is N = 1. Arrays are numpy; tensors never leave an agent or a net.

After `terminated | truncated` the next action of that env is ignored and starts a new episode
(the NEXT_STEP autoreset of Gymnasium, the one mode of the house; adapters convert).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import gymnasium

Array = np.ndarray
State = Mapping[str, Any]
"""What can be saved: nested mappings of arrays, numbers, strings, booleans, None, and lists."""


class Mistake(Exception):
    """A user's mistake: one sentence that says what was wrong and what to type. Exit code 2."""


@dataclass(frozen=True)
class Range:
    """The values a setting may take, both ends included: `Annotated[float, Range(0, 1)]`."""

    low: float = -math.inf
    high: float = math.inf


class Step(NamedTuple):
    """What N envs show at one moment. `Step.at` fills in what most worlds leave at its default."""

    observation: Array  # [N, ...] as seen by the player who moves next
    action_mask: Array  # [N, A] bool, at least one true per env; [N, 0] for Box actions
    player: Array  # [N] int64, who moves now (0 in single-agent envs)
    reward: Array  # [N, P] float32, what each player is to learn from having arrived here
    score: Array  # [N, P] float32, the same event in the game's own points, never clipped
    terminated: Array  # [N] bool, the episode is over: nothing more can be earned
    truncated: Array  # [N] bool, the episode was cut short; the value of this observation counts
    discount: Array  # [N] float32, 0 where the future is worth nothing (terminated, a lost life)
    state: Any = None  # [N] game states, for agents that plan; else None
    measures: Mapping[str, Array] | None = None
    """[N] by name: what the world alone knows of having arrived here, such as whether the action
    was optimal. For logs and plots, never for agents; NaN where there is nothing to tell. The log
    takes means over time, but of names that begin with cumulative_ the latest value."""

    @property
    def done(self) -> Array:  # [N] bool
        return self.terminated | self.truncated

    @classmethod
    def at(
        cls,
        observation: Array,
        num_actions: int,
        *,
        action_mask: Array | None = None,
        player: Array | None = None,
        reward: Array | None = None,
        score: Array | None = None,
        terminated: Array | None = None,
        truncated: Array | None = None,
        discount: Array | None = None,
        state: Any = None,
        measures: Mapping[str, Array] | None = None,
    ) -> Step:
        """Return the step at `observation` [N, ...], with every other field at its quiet default:
        all actions legal, one player, nothing earned, not over, score equal to reward, discount 0
        exactly where terminated."""
        n = len(observation)
        reward = np.zeros((n, 1), np.float32) if reward is None else reward
        terminated = np.zeros(n, bool) if terminated is None else terminated
        return cls(
            observation=observation,
            action_mask=np.ones((n, num_actions), bool) if action_mask is None else action_mask,
            player=np.zeros(n, np.int64) if player is None else player,
            reward=reward,
            score=reward if score is None else score,
            terminated=terminated,
            truncated=np.zeros(n, bool) if truncated is None else truncated,
            discount=1 - terminated.astype(np.float32) if discount is None else discount,
            state=state,
            measures=measures,
        )


class Decision(NamedTuple):
    """What an agent wants done."""

    action: Array  # [N] int64; [N, D] int64 for several choices, float32 for continuous ones
    notes: dict[str, Array]  # [N, ...] for learning and for viewers: "q_values", ...


class Trajectory(NamedTuple):
    """T decisions between T + 1 moments: step[t] -decision[t]-> step[t + 1]."""

    step: Step  # leaves [T + 1, N, ...]
    decision: Decision  # leaves [T, N, ...]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the states of a small world lie, to draw what an agent thinks of each of them."""

    cells: (
        Array  # [S, 3] int64: panel, row and column of each state; panel -1 where it is not drawn
    )
    panels: tuple[str, ...] = ("",)
    """The title of each panel."""
    axes: tuple[str, str] = ("", "")
    """What the rows and the columns count."""
    labels: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    """What is written beside each row and below each column; empty for their numbers."""
    arrows: Array | None = None  # [A, 2] rows down and columns right that each action goes
    marks: Mapping[int, str] = field(default_factory=dict)
    """Letters to write on states, such as S and G."""


@dataclass(frozen=True)
class Spec:
    """What never changes about an env."""

    num_envs: int
    observation_space: gymnasium.Space  # of one env
    action_space: gymnasium.Space  # of one env
    num_players: int = 1
    num_stacked: int = 1
    """Observations are this many frames along axis 0, oldest first, zeros before the episode."""
    frame_rate: float = 30.0
    """Pictures a second at which `render` looks natural, Hz."""
    frames_per_step: int = 1
    """Emulator frames in one agent step."""
    action_names: tuple[str, ...] = ()
    """For viewers; empty where actions have no names."""
    exact_resume: bool = False
    """True where `state_dict` holds everything, so that a resumed run is bitwise the same."""
    reference_scores: tuple[float, float] | None = None
    """Score of a random player and of a person, where a table has them."""
    model: Any = None
    """A Game or transition tables (model.py), for agents that plan."""
    layout: Layout | None = None
    """How to draw all states of a world with few."""
    policies: Mapping[str, Array] = field(default_factory=dict)
    """Policies that go with the world, [S, A] probabilities by name, for agents that evaluate a
    given one."""

    @property
    def num_actions(self) -> int:
        """A, or 0 where actions are continuous."""
        return int(getattr(self.action_space, "n", 0))


class Env(Protocol):
    """N worlds stepped together. Made by the `Config.make(render=...)` of a file in envs/."""

    spec: Spec

    def reset(self, seed: int) -> Step:
        """Start every env anew; same seed, same stream, and envs side by side differ."""
        ...

    def step(self, action: Array) -> Step:
        """Apply `action` [N]. Raises ValueError where an action is out of range."""
        ...

    def render(self) -> Array:
        """Return env 0 as a picture, [H, W, 3] uint8. Only for envs made with `render=True`."""
        ...

    def state_dict(self) -> State:
        """Return what can be saved of the world; empty where nothing can."""
        ...

    def load_state_dict(self, state: State) -> Step:
        """Restore a saved world and return the step it stands at. Call after `reset`."""
        ...

    def close(self) -> None: ...


class Symmetries(NamedTuple):
    """The K turns and reflections under which a game stays the same; the first is the identity.

    Symmetry k makes of a board with observation planes o [C, H * W], action mask m [A] and policy
    p [A] the one with o[:, board_symmetries[k]], m[action_symmetries[k]], p[action_symmetries[k]].
    """

    board_symmetries: Array  # [K, H * W] int64, permutations of the cells
    action_symmetries: Array  # [K, A] int64, permutations of the actions


class Game(Protocol):
    """The rules of a game as pure functions over N boards. A board is one numpy record, so N boards
    are an array [N], the boards of search trees are [N, nodes], and saving is np.save."""

    name: str  # with its size where it has one: "connect_four", "gomoku-9x9"
    num_actions: int
    num_players: int
    dtype: np.dtype
    observation_shape: tuple[int, int, int]  # [C, H, W]
    max_moves: int  # no game takes more
    action_names: tuple[str, ...]
    symmetries: Symmetries

    def start(self, n: int) -> Array:
        """Return n boards as a game begins, [n]."""
        ...

    def play(self, state: Array, action: Array) -> Array:
        """Return the boards [N] after `action` [N] int64, in new memory. A finished board stays as
        it is. Raises ValueError that names the first board on which the action is illegal."""
        ...

    def action_mask(self, state: Array) -> Array:
        """Return which actions are legal, [N, A] bool; at a finished board, all."""
        ...

    def player(self, state: Array) -> Array:
        """Return who moves, [N] int64; at a finished board, whoever."""
        ...

    def over(self, state: Array) -> Array:
        """Return which boards are finished, [N] bool."""
        ...

    def score(self, state: Array) -> Array:
        """Return 1 for a win, -1 for a loss and 0 for a draw or a game that goes on, [N, P]."""
        ...

    def observe(self, state: Array) -> Array:
        """Return planes of zeros and ones as the player who moves sees them, [N, C, H, W]: own
        stones, the opponent's, then what else the rules need."""
        ...

    def show(self, state: Array) -> str:
        """Return one board, [] or [1], as text with coordinates."""
        ...

    def draw(self, state: Array, last: int = -1) -> Array:
        """Return one board, [] or [1], as a picture [H, W, 3] uint8 of even sides, on which the
        action that led there is marked (-1 for none)."""
        ...

    def rollout(self, state: Array, generator: np.random.Generator) -> Array:
        """Return the score [N, P] of random play from here to the end."""
        ...


class EnvConfig(Protocol):
    """The frozen dataclass `Config` of a file in envs/."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str
    num_envs: int

    @property
    def world(self) -> str:
        """What runs are named after: pong, cartpole-v1, ..."""
        ...

    def make(self, *, render: bool = False) -> Env:
        """Build `num_envs` envs; with `render`, such that env 0 can be drawn."""
        ...

    def for_evaluation(self) -> EnvConfig:
        """Return the same world as it is scored: full games, true rewards."""
        ...


class Agent(ABC):
    """Everything that plays: a learner, the random player, a person at the keyboard."""

    horizon: ClassVar[int] | int = 1
    """How many moments T the agent wants to see between two calls of `learn`."""

    @abstractmethod
    def act(self, step: Step, explore: bool = True) -> Decision:
        """Decide for all N envs; with `explore` false, as well as the agent knows."""

    def learn(self, trajectory: Trajectory) -> Mapping[str, float | Array]:
        """Learn from T decisions; return metrics by name, such as {"train/loss": 0.1}: a number, or
        an array [N] where N runs side by side learn each on its own.

        Raises NonFinite where a loss or gradient is not a number."""
        return {}

    def actor(self) -> Agent:
        """Return who acts for this agent while it learns: as it does now, with its random numbers
        and its memory of the stream, and the same until this is called again, which brings the one
        returned up to date. Raises Mistake where nobody can."""
        raise Mistake(
            "this agent cannot act while it learns as ppo, a2c and pqn can: set collect_ahead=false"
        )

    def cut(self) -> None:
        """The world is about to start anew: the next step does not follow from the last one."""
        return None

    def begin(self) -> None:
        """A stream of play without exploring begins: its first step follows from none that was
        acted on without exploring before. What is learned from is not touched."""
        return None

    def state_dict(self) -> State:
        """Return the agent as parts by name: "weights" holds the networks' arrays by flat name,
        "replay" (optional) the memory, "agent" everything else. Arrays may be the live ones."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Take over a saved state, in place. A missing "replay" part leaves the memory empty."""
        return None


class AgentConfig(Protocol):
    """The frozen dataclass `Config` of a file in agents/."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    name: str

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Agent:
        """Build the agent; without `learns`, one that only plays and needs no memory of its past.
        Raises Mistake where it cannot play an env with this spec."""
        ...


class NonFinite(Exception):
    """A loss or gradient stopped being a number. Carries the batch, for inspection."""

    def __init__(self, what: str, batch: dict[str, Array]) -> None:
        super().__init__(what)
        self.batch = batch


def check_action(action: Array, spec: Spec) -> Array:
    """Return `action` as a contiguous int64 array [N]. Raises ValueError where it is not N whole
    numbers in 0..A-1 (ale-py would hang on one out of range)."""
    action = np.asarray(action)
    if action.shape != (spec.num_envs,) or not np.issubdtype(action.dtype, np.integer):
        raise ValueError(
            f"actions must be {spec.num_envs} whole numbers, got {action.dtype} {action.shape}"
        )
    if not 0 <= action.min() <= action.max() < spec.num_actions:
        raise ValueError(f"actions must be in 0..{spec.num_actions - 1}, got {action.tolist()}")
    return np.ascontiguousarray(action, np.int64)


def nearest(word: str, words: list[str] | tuple[str, ...]) -> str:
    """Return "; did you mean 'x'?" for the words most like `word`, or an empty string."""
    from difflib import get_close_matches

    found = get_close_matches(word, words, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(repr(w) for w in found)}?" if found else ""
