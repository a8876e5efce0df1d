"""The labels of games against what the emulator itself does."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from rlplay import config
from rlplay.core import Mistake
from rlplay.perception import objects
from rlplay.perception.objects import Box, Object, class_map, covered, pieces

GAMES = objects.games()

# Per game: a rectangle and the palette colours in it that belong to no object.
BACKGROUND = {
    "bowling": ((0, 104, 160, 171), (38,)),
    "boxing": ((32, 36, 128, 177), (214,)),
    "freeway": ((8, 24, 160, 185), (6, 8, 12, 30)),
    "ms_pacman": ((0, 1, 160, 172), (74, 144)),
    "pong": ((0, 34, 160, 194), (34,)),
    "skiing": ((8, 32, 160, 185), (14, 0)),
    "space_invaders": ((0, 28, 160, 183), (0,)),
}

# Variables, and by how many pixels right and down their object goes when they grow by one.
MOVES = [
    ("bowling", "ball_x", "ball", (1, 0)),
    ("boxing", "player_x", "player", (1, 0)),
    ("boxing", "enemy_y", "enemy", (0, 1)),
    ("breakout", "ball_x", "ball", (1, 0)),
    ("breakout", "ball_y", "ball", (0, 1)),
    ("freeway", "player_y", "player", (0, -1)),
    ("ms_pacman", "blinky_x", "blinky", (1, 0)),
    ("ms_pacman", "blinky_y", "blinky", (0, 1)),
    ("pong", "ball_x", "ball", (1, 0)),
    ("pong", "ball_y", "ball", (0, 1)),
    ("pong", "player_x", "player", (1, 0)),
    ("pong", "enemy_x", "enemy", (1, 0)),
    ("skiing", "player_x", "player", (1, 0)),
    ("space_invaders", "invaders_x", "invader", (1, 0)),
    ("space_invaders", "invaders_y", "invader", (0, 2)),
    ("space_invaders", "player_x", "player", (1, 0)),
    ("space_invaders", "shot_x", "shot", (1, 0)),
    ("tennis", "upper_x", "player", (1, 0)),
    ("tennis", "upper_y", "player", (0, -1)),
]


def load(game: str, seed: int = 0):
    ale = config.plugin("envs", "atari").load_rom(game)
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.25)
    ale.loadROM(config.plugin("envs", "atari").roms.get_rom_path(game))
    ale.reset_game()
    return ale


def play(ale, num_steps: int, seed: int = 0, frame_skip: int = 5):
    """Play at random; after each step, yield RAM and screen. The skip is odd, or what blinks would
    never be seen."""
    actions, random = ale.getMinimalActionSet(), np.random.default_rng(seed)
    for _ in range(num_steps):
        action = actions[random.integers(len(actions))]
        for _ in range(frame_skip):
            ale.act(action)
        if ale.game_over():
            ale.reset_game()
        yield ale.getRAM(), ale.getScreen()


@cache
def seen(game: str) -> list[tuple[np.ndarray, np.ndarray, list[Object]]]:
    """RAM, screen and objects of 160 moments of random play."""
    known = objects.labels(game)
    return [(ram, screen, known.objects(ram, screen)) for ram, screen in play(load(game), 160)]


def of(things: list[Object], kind: str) -> list[Object]:
    return [thing for thing in things if thing.kind == kind]


def centre(box: Box) -> np.ndarray:
    return np.array([box.left + box.right, box.top + box.bottom]) / 2


def test_at_least_eight_games_have_labels():
    assert len(GAMES) >= 8


@pytest.mark.parametrize("game", GAMES)
def test_boxes_lie_on_the_screen_and_fit_their_masks_tightly(game):
    kinds = objects.labels(game).KINDS
    for _, screen, things in seen(game):
        for thing in things:
            left, top, right, bottom = thing.box
            assert thing.kind in kinds
            assert 0 <= left < right <= screen.shape[1]
            assert 0 <= top < bottom <= screen.shape[0]
            assert thing.mask.shape == (bottom - top, right - left)
            edges = thing.mask[[0, -1]].any(1), thing.mask[:, [0, -1]].any(0)
            assert np.all(edges), thing


@pytest.mark.parametrize("game", GAMES)
def test_no_pixel_belongs_to_two_objects(game):
    for _, screen, things in seen(game):
        count = np.zeros(screen.shape, int)
        for thing in things:
            left, top, right, bottom = thing.box
            count[top:bottom, left:right] += thing.mask
        assert count.max() <= 1
        painted = class_map(things, objects.labels(game).KINDS, screen.shape)
        assert np.array_equal(painted > 0, count > 0)


@pytest.mark.parametrize("game", BACKGROUND)
def test_every_pixel_that_is_not_background_belongs_to_an_object(game):
    (left, top, right, bottom), colours = BACKGROUND[game]
    for _, screen, things in seen(game):
        painted = class_map(things, objects.labels(game).KINDS, screen.shape)
        foreground = ~np.isin(screen, colours)
        part = np.s_[top:bottom, left:right]
        assert not (foreground & (painted == 0))[part].any()
        assert not (~foreground & (painted > 0))[part].any() or game in ("freeway", "ms_pacman")


@pytest.mark.parametrize("game", GAMES)
def test_every_kind_but_the_rarest_is_seen_and_variables_vary(game):
    known = objects.labels(game)
    rare = {"saucer", "bomb", "edible_ghost", "fruit", "explosion", "pinky", "inky"}
    found = {thing.kind for _, _, things in seen(game) for thing in things}
    assert set(known.KINDS) - rare <= found <= set(known.KINDS)
    rams = np.stack([ram for ram, _, _ in seen(game)])
    values = objects.state(rams, known.VARIABLES)
    assert values.shape == (len(rams), len(known.VARIABLES))
    assert (values.std(0) > 0).sum() >= 3


@pytest.mark.parametrize("game", GAMES)
def test_objects_move_continuously_from_frame_to_frame(game):
    """With a negative control: frames in another order show jumps."""
    known, ale = objects.labels(game), load(game)
    for _ in play(ale, 60):
        pass
    boxes = [
        {kind: of(things, kind) for kind in known.KINDS}
        for things in (known.objects(*frame) for frame in play(ale, 150, 1, frame_skip=1))
    ]

    def jumps(order) -> list[float]:
        return [
            float(np.abs(centre(after[kind][0].box) - centre(before[kind][0].box)).max())
            for before, after in pairwise(order)
            for kind in known.KINDS
            if len(before[kind]) == len(after[kind]) == 1
        ]

    shuffled = [boxes[i] for i in np.random.default_rng(0).permutation(len(boxes))]
    steps = jumps(boxes)
    assert len(steps) > 100
    assert np.mean(np.array(steps) <= 8) > 0.97
    assert np.mean(jumps(shuffled)) > 2 * np.mean(steps)


@pytest.mark.parametrize(("game", "variable", "kind", "direction"), MOVES)
def test_moving_an_object_in_ram_moves_its_box_by_as_much(game, variable, kind, direction):
    known, ale = objects.labels(game), load(game, 3)
    address, by, found = known.VARIABLES[variable], 4, []
    frames = 2 if game in ("ms_pacman", "space_invaders") else 1  # until it is drawn
    for moment, _ in enumerate(play(ale, 160, 3)):
        if moment < 40 or moment % 3:
            continue
        state, boxes = ale.cloneState(), []
        for moved in (0, by):
            ale.restoreState(state)
            ale.setRAM(address, (int(ale.getRAM()[address]) + moved) % 256)
            for _ in range(frames):
                ale.act(0)
            things = of(known.objects(ale.getRAM(), ale.getScreen()), kind)
            boxes.append(things[0].box if things else None)
        ale.restoreState(state)
        if None not in boxes:
            found.append((boxes[1].left - boxes[0].left, boxes[1].top - boxes[0].top))
    assert len(found) >= 3
    exact = [move == (by * direction[0], by * direction[1]) for move in found]
    assert np.mean(exact) > 0.5, found  # clipped at an edge, or drawn anew, in the others


def test_living_invaders_are_as_many_as_ram_counts():
    counts = [
        (len(of(things, "invader")), int(ram[17])) for ram, _, things in seen("space_invaders")
    ]
    assert all(seen == known for seen, known in counts)
    assert len({known for _, known in counts}) > 3


def test_bricks_are_as_many_as_ram_has_not_seen_hit():
    counts = {(len(of(things, "brick")), 108 - int(ram[77])) for ram, _, things in seen("breakout")}
    assert {seen - known for seen, known in counts} == {0}


def test_standing_pins_are_as_many_as_ram_counts():
    agree = [
        len(of(things, "pin")) == int((ram[57:67] != 255).sum())
        for ram, _, things in seen("bowling")
        if ram[30] < 100  # the ball is not among them yet
    ]
    assert len(agree) > 50
    assert np.mean(agree) > 0.95


def test_dots_vanish_as_ram_counts_them():
    first = None
    for ram, _, things in seen("ms_pacman"):
        dots = len(of(things, "pellet")) + int(ram[119])
        first = dots if first is None else first
        assert abs(dots - first) <= 4  # those under a sprite


def test_an_eaten_energizer_turns_the_ghosts():
    known, ale = objects.labels("ms_pacman"), load("ms_pacman", 3)
    for _ in play(ale, 60):
        pass
    kinds = set()
    for frame in range(160):
        if frame < 60:  # beside the energizer at the lower left
            ale.setRAM(10, 20)
            ale.setRAM(16, 144 + frame // 6)
        ale.act(0)
        kinds |= {thing.kind for thing in known.objects(ale.getRAM(), ale.getScreen())}
    assert "edible_ghost" in kinds


def test_pieces_join_what_touches_and_nothing_else():
    pixels = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 0, 0, 1]], bool)
    assert len(pieces("a", pixels, 0, 0)) == 3
    found = pieces("a", pixels, 10, 20, gap=1)
    assert [tuple(thing.box) for thing in found] == [(10, 20, 12, 22), (14, 20, 15, 23)]
    assert found[1].mask.tolist() == [[True], [False], [True]]
    assert covered("a", np.zeros((3, 4), bool), 0, 0) == []


def test_a_game_without_labels_is_told_in_one_sentence():
    with pytest.raises(Mistake, match="no labels for the game 'pongg'; did you mean 'pong'"):
        objects.labels("pongg")
