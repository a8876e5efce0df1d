"""Laws of rlplay/person.py: a person plays, takes back, asks, and errs, and nothing breaks."""

from __future__ import annotations

import numpy as np
import pytest

from envs import tictactoe
from rlplay import person
from rlplay.__main__ import run_verb
from rlplay.core import Agent, Decision, Mistake, Step

GAME = tictactoe.Config().rules()
NAMES = GAME.action_names


class Opponent(Agent):
    """Plays the first legal move and says what it thinks of it."""

    def act(self, step: Step, explore: bool = True) -> Decision:
        action = step.action_mask.argmax(1)
        visits = np.where(step.action_mask, 3, 0)
        return Decision(action, {"visits": visits, "value": np.array([0.25])})


def sit(words: list[str], side: int = 0) -> tuple[float | None, str]:
    """Play with these words; return the person's score and all that was said."""
    said: list[str] = []
    stream = iter(words)

    def ask(prompt: str) -> str:
        try:
            return next(stream)
        except StopIteration:
            raise EOFError from None

    return person.play(GAME, Opponent(), side, ask, said.append), "\n".join(said)


def test_three_in_a_row_wins():
    score, said = sit([NAMES[4], NAMES[2], NAMES[6]])  # the agent plays 0 and 1
    assert score == 1
    assert "You have won." in said


def test_the_second_player_waits_for_the_first():
    score, said = sit(["moves"], side=1)
    assert score is None
    assert said.index(f"The agent plays {NAMES[0]}") < said.index("Legal moves")
    assert f"Legal moves: {NAMES[1]}" in said  # its move is made


def test_losing_is_said():
    score, said = sit([NAMES[8], NAMES[3], NAMES[7]])  # the agent plays 0, 1 and 2
    assert score == -1
    assert "The agent has won." in said


def test_undo_takes_back_both_moves():
    score, said = sit([NAMES[8], "undo", NAMES[4], NAMES[2], NAMES[6]])
    assert score == 1  # with 8 still there the game would have gone another way
    _, said = sit(["undo"])
    assert "no move of yours" in said


def test_thoughts_after_undo_are_of_the_board_that_stands_again():
    _, said = sit([NAMES[4], "undo", "thoughts"])  # the agent had moved on a board with a stone
    lines = said.splitlines()
    top = next(i for i, line in enumerate(lines) if "visits" in line)
    assert [line.split()[0] for line in lines[top + 1 :][: person.TOP]] == [*NAMES[: person.TOP]]


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("moves", "Legal moves: "),
        ("zz", "'zz' is no move"),
        ("help", "hint"),
        ("", "hint"),
        ("hint", f"The agent would play {NAMES[0]}"),
        ("thoughts", "visits"),
    ],
)
def test_words_that_are_no_moves_are_answered_and_change_nothing(word, answer):
    score, said = sit([word, NAMES[4], NAMES[2], NAMES[6]])
    assert answer in said
    assert score == 1


def test_a_taken_cell_is_refused():
    score, said = sit([NAMES[4], NAMES[4], NAMES[2], NAMES[6]])
    assert f"{NAMES[4]} is not legal here" in said
    assert score == 1


@pytest.mark.parametrize("words", [["quit"], [], [NAMES[4]]])
def test_leaving_is_no_result(words):
    assert sit(words)[0] is None


@pytest.mark.parametrize(("what", "code"), [(EOFError, 0), (KeyboardInterrupt, 130)])
def test_leaving_by_the_keyboard_is_no_mistake(what, code, monkeypatch, capsys):
    def ask(prompt: str) -> str:
        raise what

    monkeypatch.setattr("builtins.input", ask)
    assert run_verb(["play", "tictactoe", "--against", "uniform"]) == code
    said = capsys.readouterr()
    assert said.out.startswith("You are first.")
    assert not said.err


def test_thoughts_are_a_table_and_a_line_on_what_is_expected():
    lines = sit([NAMES[4], "thoughts"])[1].splitlines()
    top = next(i for i, line in enumerate(lines) if "visits" in line)
    assert lines[top + 1].split() == [NAMES[0], "3"]
    assert lines[top + 1 + person.TOP] == "It expects +0.25 (-1 lost, 1 won)."


def test_an_agent_that_plays_against_the_rules_is_one_sentence():
    class Rude(Agent):
        def act(self, step: Step, explore: bool = True) -> Decision:
            return Decision((~step.action_mask).argmax(1), {})

    with pytest.raises(Mistake, match="Rude played the illegal move a1 of tictactoe"):
        person.play(GAME, Rude(), 0, lambda prompt: NAMES[0], lambda sentence: None)
