"""A person at the keyboard plays a board game against an agent.

Takes moves by name or number, can take them back, asks the agent for a hint and shows what it
thinks. It knows the terminal only as two functions, one that asks and one that says.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlplay.core import Agent, Array, Decision, Game, nearest
from rlplay.match import decide

HELP = "a move, or: moves, undo, hint, thoughts, help, quit"
TOP = 5
"""Moves that the agent's thoughts list."""


def play(
    game: Game,
    agent: Agent,
    side: int,
    ask: Callable[[str], str],
    say: Callable[[str], None],
) -> float | None:
    """Play one game, the person as player `side` (0 moves first); return the person's score, or
    None where they left. `ask` raises EOFError where there is no more input."""
    boards = [game.start(1)]  # one after each move
    say(f"You are {'first' if side == 0 else 'second'}. Type {HELP}.")
    say(game.show(boards[-1][0]))
    thought: Decision | None = None
    while not game.over(boards[-1])[0]:
        board = boards[-1]
        if game.player(board)[0] != side:
            thought = decide(game, agent, board)
            action = thought.action
            say(f"The agent plays {game.action_names[int(action[0])]}.{expectation(thought)}")
        else:
            try:
                word = ask("your move> ").strip().lower()
            except EOFError:
                say("")  # the prompt stands alone
                return None
            if word in ("quit", "q", "exit"):
                return None
            if word == "undo":
                if undo(game, boards, side, say):
                    thought = None  # it was of a board that is gone
                continue
            if word in ("hint", "thoughts"):
                if word == "hint" or thought is None:
                    thought = decide(game, agent, board)
                say(hint(game, thought) if word == "hint" else thoughts(game, thought))
                continue
            number = move(game, board, word, say)
            if number is None:
                continue
            action = np.array([number])
        boards.append(game.play(board, action))
        say(game.show(boards[-1][0]))
    score = float(game.score(boards[-1])[0, side])
    say({1: "You have won.", 0: "A draw.", -1: "The agent has won."}[int(score)])
    return score


def undo(game: Game, boards: list[Array], side: int, say: Callable[[str], None]) -> bool:
    """Take back moves until the person is to move again, before their last move; return whether
    there was one."""
    back = [i for i, board in enumerate(boards[:-1]) if game.player(board)[0] == side]
    if not back:
        say("There is no move of yours to take back.")
        return False
    del boards[back[-1] + 1 :]
    say(game.show(boards[-1][0]))
    return True


def move(game: Game, board: Array, word: str, say: Callable[[str], None]) -> int | None:
    """Return the legal move that a word means, by name or number, or say why it means none."""
    legal = [int(a) for a in np.flatnonzero(game.action_mask(board)[0])]
    names = {game.action_names[a].lower(): a for a in range(game.num_actions)}
    legal_names = ", ".join(game.action_names[a] for a in legal)
    if word in ("help", "?", ""):
        say(f"Type {HELP}.")
        return None
    if word == "moves":
        say(f"Legal moves: {legal_names}")
        return None
    number = names.get(word)
    if number is None:
        say(f"{word!r} is no move{nearest(word, list(names))}; legal: {legal_names}")
        return None
    if number not in legal:
        say(f"{word} is not legal here; legal: {legal_names}")
        return None
    return number


def expectation(thought: Decision) -> str:
    """Return what the agent expects, in words, where it says so."""
    if "value" not in thought.notes:
        return ""
    return f" It expects {float(thought.notes['value'][0]):+.2f} (-1 lost, 1 won)."


def hint(game: Game, thought: Decision) -> str:
    return (
        f"The agent would play {game.action_names[int(thought.action[0])]}.{expectation(thought)}"
    )


def thoughts(game: Game, thought: Decision) -> str:
    """Return the moves that the agent looked at most, with what it thought of them."""
    notes = thought.notes
    kinds = [kind for kind in ("visits", "policy", "q_values") if kind in notes]
    if not kinds:
        return "This agent does not say what it thinks."
    order = np.argsort(-notes[kinds[0]][0], kind="stable")[:TOP]
    lines = ["move    " + "".join(f"{kind:>10}" for kind in kinds)]
    for a in order:
        cells = [notes[kind][0][a] for kind in kinds]
        written = [f"{c:>10}" if isinstance(c, np.integer) else f"{c:>10.2f}" for c in cells]
        lines.append(f"{game.action_names[int(a)]:<8}" + "".join(written))
    return "\n".join([*lines, expectation(thought).strip()]).strip()
