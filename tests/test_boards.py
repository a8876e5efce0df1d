"""Laws of rlplay/perception/boards.py and squares.py: boards as pictures, read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlplay import config
from rlplay.core import Mistake
from rlplay.perception import boards, classify, data
from rlplay.perception.boards import LEARNED, TESTED
from rlplay.perception.source import SPLITS, Source
from rlplay.perception.squares import Squares

BRIGHT = (boards.DARK, boards.LIGHT)
GAMES = ("connect_four", "tictactoe", "othello:size=6", "gomoku:size=9,line=5", "breakthrough")


def made(game: str = "connect_four", num: int = 40, **settings) -> Source:
    return data.Config("boards", game=game, num_boards=num, **settings).make(config.rules)


@pytest.mark.parametrize("game", GAMES)
def test_squares_are_the_boards_of_the_game(game):
    source, rules = made(game, 12), config.rules(game)
    squares = source.arrays["squares"]
    assert source.shape == (3, 64, 64)
    assert squares.shape[1:] == rules.observation_shape[1:]
    assert squares.min() >= 0
    assert squares.max() == 2
    assert source.kinds == ("empty", "first", "second")
    if game == "connect_four":
        first, second = (squares == 1).sum((1, 2)), (squares == 2).sum((1, 2))
        assert set(first - second) <= {0, 1}
        filled = squares > 0  # a stone lies on the ground or on another one
        assert (filled[:, 1:] | ~filled[:, :-1]).all()


def test_positions_are_any_of_a_random_game():
    """As often as in games that are played out and from which one moment is drawn."""
    rules, random = config.rules("tictactoe"), np.random.default_rng(0)
    count = np.array([(rules.cells(s) >= 0).sum() for s in boards.positions(rules, 3000, random)])
    lengths = []
    for _ in range(600):
        state, moves = rules.start(1), 0
        while not rules.over(state)[0]:
            legal = np.flatnonzero(rules.action_mask(state)[0])
            state, moves = rules.play(state, random.choice(legal, 1)), moves + 1
        lengths.append(moves)
    expected = np.mean([[(m <= n) / (n + 1) for m in range(10)] for n in lengths], 0)
    np.testing.assert_allclose(np.bincount(count, minlength=10) / 3000, expected, atol=0.025)


def test_same_seed_same_boards_and_another_seed_others():
    one, again, other = made(), made(), made(seed=1)
    assert np.array_equal(one.arrays["picture"], again.arrays["picture"])
    assert not np.array_equal(one.arrays["picture"], other.arrays["picture"])
    index = np.concatenate([one.splits[name] for name in SPLITS])
    assert sorted(index) == list(range(40))
    assert [len(one.splits[name]) for name in SPLITS] == [28, 4, 8]


def test_styles_of_the_test_share_nothing_with_those_of_the_training():
    assert not set(LEARNED.shapes) & set(TESTED.shapes)
    assert not set(LEARNED.patterns) & set(TESTED.patterns)
    for start, stop in LEARNED.hues:
        for other, end in TESTED.hues:
            for turn in (-360, 0, 360):
                assert stop + turn < other or end < start + turn


def test_hues_are_of_their_family():
    import colorsys

    random = np.random.default_rng(0)
    for family in (LEARNED, TESTED):
        for bright in (boards.DARK, boards.LIGHT, (60, 210)):
            for ink in boards.colours(family, bright, 200, random):
                assert bright[0] - 1 < ink @ boards.WEIGHT < bright[1] + 1
                assert -1e-6 <= ink.min() <= ink.max() < 256
                hue, saturation, _ = colorsys.rgb_to_hsv(*ink / 255)
                near = [(360 * hue - a + 0.5) % 360 <= b - a + 1 for a, b in family.hues]
                assert any(near) or saturation < 0.02


@pytest.mark.parametrize("family", [LEARNED, TESTED])
def test_first_players_stones_are_darker_in_every_style(family):
    """Read by hand where each square is, the middle of which tells who lies there."""
    squares = np.array([[1, 2, 0], [0, 1, 2], [2, 0, 1]])
    for seed in range(60):
        random = np.random.default_rng(seed)
        left, top, wide, high = boards.placed(3, 3, 96, np.random.default_rng(seed))
        picture, box = boards.painted(squares, 96, family, random)
        assert box == pytest.approx((left, top, left + 3 * wide, top + 3 * high))
        bright = np.tensordot(boards.WEIGHT, picture, 1)
        cells = np.empty((3, 3, 2))
        for row in range(3):
            for column in range(3):
                y, x = int(top + (row + 0.2) * high), int(left + (column + 0.2) * wide)
                part = bright[y : y + int(0.6 * high), x : x + int(0.6 * wide)]
                cells[row, column] = part.min(), part.max()
        assert cells[squares == 1][:, 0].max() < 110
        assert cells[squares == 2][:, 1].min() > 140


def test_boards_lie_in_their_pictures():
    for seed in range(200):
        random = np.random.default_rng(seed)
        rows, columns = random.integers(3, 16, 2)
        left, top, wide, high = boards.placed(rows, columns, 64, random)
        assert 0 < left < left + columns * wide < 64
        assert 0 < top < top + rows * high < 64


def test_grey_boards_have_one_channel_and_the_same_squares():
    coloured, bright = made(num=20, size=24), made(num=20, size=24, grey=True)
    assert bright.shape == (1, 24, 24)
    assert coloured.shape == (3, 24, 24)
    every = np.arange(20)
    for name in ("squares", "boxes"):
        assert np.array_equal(bright.arrays[name][every], coloured.arrays[name][every])


def test_what_is_no_board_game_is_one_sentence():
    with pytest.raises(Mistake, match=r"no board game: set data.game to one of .*connect_four"):
        made("gridworld")
    with pytest.raises(Mistake, match="did you mean 'connect_four'"):
        made("conect_four")
    with pytest.raises(Mistake, match="of 2 boards none would be left to learn from"):
        made(num=2)


@pytest.fixture
def task() -> Squares:
    torch.manual_seed(0)
    task = classify.Config(target="squares").make(made(num=30))
    assert isinstance(task, Squares)
    return task


def test_stones_stand_out_by_more_than_patterns():
    random = np.random.default_rng(0)
    for family in (LEARNED, TESTED):
        for _ in range(200):
            stones = [boards.colours(family, bright, 1, random)[0] for bright in BRIGHT]
            board = boards.distinct(family, (60, 210), stones, random, boards.LIGHTER)
            for stone in stones:
                assert np.linalg.norm(board - stone) >= boards.APART
                assert abs((board - stone) @ boards.WEIGHT) >= boards.LIGHTER
    x, y = np.random.default_rng(1).uniform(-1, 8, (2, 500)).astype(np.float32)
    for pattern in (*LEARNED.patterns, *TESTED.patterns):
        for _ in range(20):
            light = boards.patterned(pattern, x, y, np.floor(x + y).astype(int), random)
            assert light.shape == x.shape
            assert np.abs(light).max() < (2.2 if pattern == "graded" else 1.001)


def test_squares_are_read_at_places_spread_over_them(task):
    edges = torch.tensor([[-0.5, -1.0, 0.5, 0.2]])
    grid, wider = task.grid(edges, 3)[0], task.grid(edges, 3, margin=2)[0]
    assert grid.shape == (6 * 3, 7 * 3, 2)
    for row, column in ((0, 0), (2, 5), (5, 6)):
        expected = (-0.5 + (column + 0.5) / 7, -1 + 1.2 * (row + 0.5) / 6)
        assert grid[row * 3 + 1, column * 3 + 1].tolist() == pytest.approx(expected)
    torch.testing.assert_close(wider[6:-6, 6:-6], grid)
    assert wider[1, 1].tolist() == pytest.approx((-0.5 - 1.5 / 7, -1 - 1.2 * 1.5 / 6))


def test_a_board_looks_the_same_wherever_it_is_known_to_lie(task):
    task.eval()
    batch = next(task.batches("train", 4))
    picture, known = torch.zeros_like(batch["picture"]), task.box(batch)
    picture[:, :, 20:52, 20:52] = batch["picture"][:, :, 20:52, 20:52]
    with torch.no_grad():
        here, _, corrected = task.look(picture, known)
        moved = torch.tensor([-6, 9] * 2) / 32
        there, _, other = task.look(picture.roll((9, -6), (2, 3)), known + moved)
        torch.testing.assert_close(here, there, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(corrected + moved, other, rtol=1e-3, atol=1e-4)
        assert not torch.allclose(here, task.look(picture, known + 0.1)[0], rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(task.look(picture, task.look(picture)[2])[0], task(picture))


def test_loss_and_what_is_found_are_computed_by_hand(task):
    task.eval()
    batch = next(task.batches("train", 100))
    with torch.no_grad():
        logits = task(batch["picture"]).double().numpy()
        loss, found = task.loss(batch)[0].item(), task.examine(task.batches("train", 7))
    truth = batch["squares"].numpy()
    log_share = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    likely = np.take_along_axis(log_share, truth[:, None], 1)
    with torch.no_grad():
        edges = np.stack(task.look(batch["picture"])[1:])  # found and corrected
    off = np.abs(edges - (batch["boxes"].numpy()[:, 0] / 32 - 1)).mean((1, 2))
    assert loss == pytest.approx(-likely.mean() + off.sum(), rel=1e-5)
    right = logits.argmax(1) == truth
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["boards"] == pytest.approx(right.all((1, 2)).mean())
    assert found["errors"] == (~right).sum()


def test_misread_squares_are_marked_in_red(task):
    from rlplay.palette import GREEN, RED

    task.eval()
    batch = next(task.batches("train", 4))
    with torch.no_grad():
        right = task(batch["picture"]).argmax(1)
        drawn = task.draw({**batch, "squares": right})["boards"]
        assert not (drawn == RED).all(2).any()
        assert (drawn == GREEN).all(2).any()
        wrong = task.draw({**batch, "squares": (right + 1) % 3})["boards"]
    assert (wrong == RED).all(2).any()
