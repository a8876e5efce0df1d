"""Rules become an env: N boards of a game side by side; and what the board games have in common.

A game of envs/ is a `BoardGame`: its class holds the sizes and names, and thin methods around numba
kernels that stand in its own file (numba's cache does not see when a kernel of another file
changes). Knows no agent and no search.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from string import ascii_lowercase
from typing import TYPE_CHECKING

import numpy as np

from rlplay.core import Array, Game, Mistake, Spec, State, Step, Symmetries, check_action
from rlplay.palette import AMBER, BLUE, LINE, NIGHT, SLATE, SNOW

if TYPE_CHECKING:
    from PIL import ImageDraw

SIDE = 448  # of the board's longer side in a picture, about, pixels
MARGIN = 36  # around the board, pixels
STONE = 0.38  # radius of a stone, in widths of a tile
COLOURS = ("amber", "blue")  # of the players' stones
TRIES = 1000  # to play a random opening that does not end the game
NOBODY = -1
"""The winner of a game that is drawn, or that goes on."""
SCORES = np.array([[1, -1], [-1, 1], [0, 0]], np.float32)  # by winner; NOBODY is the last row


class BoardGame(ABC):
    """The rules of a game for two, whose boards are records with the fields `player` int8 (0 or 1,
    who moves), `over` bool and `winner` int8 (0, 1 or NOBODY) beside its own. It is a core.Game."""

    name: str
    num_actions: int
    num_players = 2
    dtype: np.dtype
    observation_shape: tuple[int, int, int]
    max_moves: int
    action_names: tuple[str, ...]
    symmetries: Symmetries
    columns: Sequence[str] = ()
    rows: Sequence[str] = ()
    """Names to write beside the board; empty for letters, and for numbers from the top."""

    @abstractmethod
    def follow(self, state: Array, action: Array, following: Array) -> int:
        """Write the boards after `action` into `following`, [N] each, finished ones unchanged;
        return the index of the first board on which it is illegal, or -1. An action may be any
        number."""

    @abstractmethod
    def action_mask(self, state: Array) -> Array: ...

    @abstractmethod
    def observe(self, state: Array) -> Array: ...

    @abstractmethod
    def rollout(self, state: Array, generator: np.random.Generator) -> Array: ...

    def start(self, n: int) -> Array:
        state = np.zeros(n, self.dtype)
        state["winner"] = NOBODY
        return state

    def cells(self, board: Array) -> Array:
        """Return who has a stone on each cell of one board, [H, W] int64: 0, 1, NOBODY."""
        own, others = self.observe(board.reshape(1))[0, :2] > 0
        player = int(board["player"])
        return np.where(own, player, np.where(others, 1 - player, NOBODY))

    def play(self, state: Array, action: Array) -> Array:
        if action.shape != state.shape:
            raise ValueError(f"{len(state)} boards need as many actions, got {action.shape}")
        following = np.empty(len(state), self.dtype)
        illegal = self.follow(state, action, following)
        if illegal >= 0:
            chosen = int(action[illegal])
            known = 0 <= chosen < self.num_actions
            move = f"{chosen} ({self.action_names[chosen]})" if known else str(chosen)
            raise ValueError(
                f"actions must be legal, and {move} is not on board {illegal} of {self.name}:\n"
                f"{self.show(state[illegal])}"
            )
        return following

    def player(self, state: Array) -> Array:
        return state["player"].astype(np.int64)

    def over(self, state: Array) -> Array:
        return state["over"].copy()

    def score(self, state: Array) -> Array:
        return scores(state["winner"])

    def show(self, state: Array) -> str:
        board = state.reshape(())
        cells = self.cells(board)
        return f"{text_board(cells, self.columns, self.rows)}\n{standing(board, ('X', 'O'))}"

    def draw(self, state: Array, last: int = -1) -> Array:
        board = state.reshape(())
        marked = self.marked(board, last)
        return picture(self.cells(board), marked, standing(board), self.columns, self.rows)

    def places(self, state: Array) -> tuple[Array, float]:
        """Return where each legal action of one board, [] or [1], begins and ends in its picture,
        [A, 2, 2] float64 pixels across and down, nan for illegal ones and where it has no place,
        such as a pass; and how far cells lie apart, pixels."""
        middles, pitch = self.middles()
        middles = np.concatenate([middles, [(np.nan, np.nan)]])
        legal = self.action_mask(state.reshape(1)).T  # [A, 1]
        ends = np.where(legal, self.ends(state.reshape(())), len(middles))
        return middles[np.minimum(ends, len(middles) - 1)], pitch

    def middles(self) -> tuple[Array, float]:
        """Return the middle of each cell in a picture, [H * W, 2] pixels across and down, and how
        far they lie apart."""
        return middles(*self.observation_shape[1:])

    def ends(self, board: Array) -> Array:
        """Return the cells on which each legal action begins and ends, [A, 2] int64, H * W or more
        for none, and anything for illegal ones; here actions and cells are the same numbers."""
        return np.arange(self.num_actions)[:, None].repeat(2, 1)

    def marked(self, board: Array, action: int) -> int:
        """Return the cell that an action was played on, H * W or more for none; here they are the
        same numbers."""
        return action


def standing(board: Array, names: tuple[str, str] = COLOURS) -> str:
    """Return in words who moves or who has won, given a board of a BoardGame."""
    if not board["over"]:
        return f"{names[int(board['player'])]} to move"
    winner = int(board["winner"])
    return "a draw" if winner == NOBODY else f"{names[winner]} has won"


def scores(winner: Array) -> Array:
    """Return 1 for those who won and -1 for those who lost, [N, 2] float32, given the winners [N]
    (0, 1, NOBODY)."""
    return SCORES[winner]


class GameEnv:
    """N boards side by side, for agents that play both sides.

    A step shows the board to the player who moves; where a game ends its score is the reward of
    both players. Up to `random_opening` moves are played at random before each game is handed out;
    games that they would end are begun again. `state` holds the boards [N], and `spec.model` the
    rules. Raises Mistake where hardly any game lasts that long.
    """

    def __init__(
        self, game: Game, num_envs: int, *, random_opening: int = 0, render: bool = False
    ) -> None:
        from gymnasium.spaces import Box, Discrete

        self.spec = Spec(
            num_envs=num_envs,
            observation_space=Box(0, 1, game.observation_shape, np.float32),
            action_space=Discrete(game.num_actions),
            num_players=game.num_players,
            frame_rate=2,
            action_names=game.action_names,
            exact_resume=True,
            model=game,
        )
        self.game = game
        self.random_opening = random_opening
        self.drawn = render
        self.generator = np.random.default_rng(0)
        self.boards = game.start(num_envs)  # [N]
        self.last = -1  # the action that led to board 0
        self._begun = False

    def reset(self, seed: int) -> Step:
        self.generator = np.random.default_rng(seed)
        self.boards = self._openings(self.spec.num_envs)
        self._begun, self.last = True, -1
        return self._show()

    def step(self, action: Array) -> Step:
        """Apply `action` [N]. Raises ValueError where one is out of range or illegal."""
        self._check()
        action = check_action(action, self.spec)
        begins = self.game.over(self.boards)
        boards = self.game.play(self.boards, action)
        if num_begins := int(begins.sum()):
            boards[begins] = self._openings(num_begins)
        self.boards = boards
        self.last = -1 if begins[0] else int(action[0])
        return self._show()

    def render(self) -> Array:
        """Return board 0 as a picture, [H, W, 3] uint8."""
        if not self.drawn:
            raise RuntimeError("only an env made with render=True can be drawn")
        self._check()
        return self.game.draw(self.boards[:1], self.last)

    def state_dict(self) -> State:
        self._check()
        return {
            "game": self.game.name,
            "boards": self.boards,
            "last": self.last,
            "generator": self.generator.bit_generator.state,
        }

    def load_state_dict(self, state: State) -> Step:
        """Restore a saved world. Raises Mistake where it has more boards, or of another game."""
        if state["game"] != self.game.name:
            raise Mistake(f"the run was saved in {state['game']}, which is not {self.game.name}")
        boards = np.array(state["boards"])
        if boards.dtype != self.game.dtype:
            raise Mistake(f"the run was saved with boards of an older {self.game.name}: train anew")
        if len(boards) != self.spec.num_envs:
            raise Mistake(
                f"the run was saved with {len(boards)} envs: set env.num_envs={len(boards)}"
            )
        self.generator.bit_generator.state = state["generator"]
        self.boards, self.last, self._begun = boards, int(state["last"]), True
        return self._show()

    def close(self) -> None:
        pass

    def _openings(self, n: int) -> Array:
        """Return n boards that are not finished, each after up to `random_opening` random moves,
        all numbers of moves equally likely."""
        boards = self.game.start(n)
        if self.random_opening == 0:
            return boards
        length, ended = self.generator.integers(self.random_opening + 1, size=n), np.ones(n, bool)
        for _ in range(TRIES):
            if not (again := int(ended.sum())):
                return boards
            tried = self.game.start(again)
            for ply in range(self.random_opening):
                mask = self.game.action_mask(tried)
                keys = np.where(mask, self.generator.random(mask.shape), -1.0)
                played = self.game.play(tried, keys.argmax(1))
                tried = np.where(ply < length[ended], played, tried)
            boards[ended] = tried
            ended[ended] = self.game.over(tried)
        raise Mistake(
            f"hardly any game of {self.game.name} lasts {self.random_opening} random moves: set"
            " env.random_opening lower"
        )

    def _check(self) -> None:
        if not self._begun:
            raise RuntimeError("call reset first")

    def _show(self) -> Step:
        return step_at(self.game, self.boards.copy())


def step_at(game: Game, state: Array) -> Step:
    """Return what boards [N] show to those who move."""
    return Step.at(
        game.observe(state),
        game.num_actions,
        action_mask=game.action_mask(state),
        player=game.player(state),
        reward=game.score(state),
        terminated=game.over(state),
        state=state,
    )


def square_symmetries(size: int, num_others: int = 0) -> Symmetries:
    """Return the 8 symmetries of a square board whose actions are its cells, row by row, followed
    by `num_others` actions that stay what they are."""
    board = np.arange(size * size).reshape(size, size)
    turned = [np.rot90(side, k).ravel() for side in (board, board.T) for k in range(4)]
    return with_others(np.stack(turned), num_others)


def with_others(cells: Array, num_others: int = 0) -> Symmetries:
    """Return symmetries [K, H * W] of cells that are actions too, followed by some others."""
    others = np.arange(num_others) + cells.shape[1]
    action = np.concatenate([cells, np.broadcast_to(others, (len(cells), num_others))], 1)
    return Symmetries(cells.astype(np.int64), action.astype(np.int64))


def cell_names(height: int, width: int) -> tuple[str, ...]:
    """Return the names of cells, row by row from the top: a1, b1, ..."""
    return tuple(f"{ascii_lowercase[c]}{r + 1}" for r in range(height) for c in range(width))


def text_board(
    cells: Array, columns: Sequence[str] = (), rows: Sequence[str] = (), stones: str = "XO"
) -> str:
    """Return cells [H, W] (0, 1, NOBODY) as text, with the names of columns above and of rows on
    the left; by default letters, and numbers from the top."""
    height, width = cells.shape
    columns = columns or ascii_lowercase[:width]
    rows = rows or [str(r + 1) for r in range(height)]
    edge = max(map(len, rows))
    lines = [" ".join([" " * edge, *columns])]
    for name, row in zip(rows, cells, strict=True):
        lines.append(" ".join([name.rjust(edge), *(f"{stones}."[int(cell)] for cell in row)]))
    return "\n".join(lines)


def middles(height: int, width: int) -> tuple[Array, int]:
    """Return the middle of each tile of `picture`, row by row, [H * W, 2] pixels across and down,
    and how far they lie apart."""
    pitch = 2 * (SIDE // max(height, width) // 2)
    row, column = np.indices((height, width)).reshape(2, -1)
    return MARGIN + pitch * (np.stack([column, row], 1) + 0.5), pitch


def picture(
    cells: Array,
    marked: int = -1,
    caption: str = "",
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> Array:
    """Draw cells [H, W] (0, 1, NOBODY) as tiles with stones, amber for player 0 and blue for player
    1, one cell marked, a caption below, named as in `text_board`: [H', W', 3] uint8."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = cells.shape
    columns = columns or ascii_lowercase[:width]
    rows = rows or [str(r + 1) for r in range(height)]
    places, pitch = middles(height, width)
    unit, edge = 2 * pitch, 2 * MARGIN  # twice as large as in the end
    image = Image.new("RGB", (2 * edge + width * unit, 2 * edge + height * unit), NIGHT)
    draw = ImageDraw.Draw(image)
    small, large = (ImageFont.load_default(2 * size) for size in (13, 16))
    for c, name in enumerate(columns):
        draw.text((edge + (c + 0.5) * unit, edge / 2), name, SLATE, small, "mm")
    for r, name in enumerate(rows):
        draw.text((edge / 2, edge + (r + 0.5) * unit), name, SLATE, small, "mm")
    reach = unit / 2 - max(1, unit // 40)  # of a tile
    for cell, (x, y) in enumerate(2 * places):
        draw.rounded_rectangle((x - reach, y - reach, x + reach, y + reach), unit // 12, LINE)
        if (player := int(cells.flat[cell])) != NOBODY:
            stone(draw, x, y, STONE * unit, player)
        if cell == marked:
            draw.circle((x, y), 0.1 * unit, SNOW)
    draw.text((image.width / 2, image.height - edge / 2), caption, SNOW, large, "mm")
    return np.array(image.reduce(2))


def stone(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, player: int) -> None:
    """Draw a player's stone around (x, y)."""
    draw.circle((x, y), radius, (AMBER, BLUE)[player])
