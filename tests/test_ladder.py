"""Laws of rlplay/ladder.py: who is known to be stronger stands higher, and the curve is kept."""

from __future__ import annotations

import json

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rlplay import checkpoint, config, run
from rlplay.core import Mistake
from rlplay.ladder import Config, ladder
from rlplay.run import Run
from rlplay.train import Training

OPPONENTS = ("uniform", "minimax:depth=2", "perfect")


def trained(folder, name="tictactoe/alphazero", *settings: str) -> Run:
    """Return a finished run of a few steps."""
    few = "--num-steps 30 --checkpoint.every 10 --evaluation.num-episodes 0 --recording.max-steps 0"
    experiment = config.load(name, [*few.split(), *settings])
    training = Training(experiment, lambda sentence: None)
    made = run.create(experiment, training.env.spec, folder)
    assert training.run(made) == 0
    return made


@pytest.fixture(scope="module")
def player(tmp_path_factory):
    """A run of the random player: it learns nothing, so all its checkpoints are equally strong."""
    root = tmp_path_factory.mktemp("runs")
    return trained(root, "tictactoe/alphazero", "--agent.name", "uniform", "--env.num-envs", "1")


@pytest.fixture(scope="module")
def climbed(player):
    """The files of its ladder, and what was said."""
    said: list[str] = []
    paths = ladder(player, Config(OPPONENTS, num_games=60), said.append)
    return paths, said


def rated(climbed) -> dict[str, tuple[float, float, float]]:
    rows = json.loads(climbed[0][0].read_text())["ratings"]
    return {row["name"]: (row["elo"], row["low"], row["high"]) for row in rows}


def test_agents_of_known_strength_are_in_order(climbed):
    found = rated(climbed)
    uniform, minimax, perfect = (found[name] for name in OPPONENTS)
    assert perfect == (0, 0, 0)
    assert minimax[0] < 0
    assert uniform[2] < minimax[1]  # surely worse
    assert uniform[2] < -100
    assert all(low <= elo <= high for elo, low, high in found.values())


def test_checkpoints_that_play_at_random_stand_where_the_random_player_does(climbed, player):
    found = rated(climbed)
    steps = checkpoint.names(player.checkpoints)
    assert len(steps) == 2
    for name in steps:
        elo, low, high = found[name]
        assert low <= found["uniform"][0] <= high
        assert low <= elo <= high < 0  # and surely below who makes no mistake


def test_everyone_meets_and_ratings_are_said(climbed, player):
    _, said = climbed
    steps = checkpoint.names(player.checkpoints)
    num_meetings = 3 + 3 * len(steps) + len(steps) - 1
    assert said[num_meetings - 1].startswith(f"[{num_meetings}/{num_meetings}] ")
    assert [line.partition(": ")[0] for line in said[num_meetings:]] == [*OPPONENTS, *steps]


def test_curve_is_written_to_the_run_folder_and_tensorboard(climbed, player):
    paths, _ = climbed
    assert [path.name for path in paths] == ["ladder.json", "ladder.png", "ladder.svg"]
    assert all(path.parent == player.folder and path.stat().st_size > 100 for path in paths)
    events = EventAccumulator(str(player.folder), size_guidance={"images": 0}).Reload()
    assert {"ladder"} <= {*events.Tags()["images"]}
    logged = {f"{event.step:09d}": event.value for event in events.Scalars("ladder/elo")}
    assert logged == pytest.approx(
        {name: rated(climbed)[name][0] for name in checkpoint.names(player.checkpoints)}, rel=1e-5
    )


def test_opponent_named_twice_is_one(player, tmp_path):
    said: list[str] = []
    ladder(player, Config(("uniform", "uniform", "minimax"), num_games=2), said.append)
    assert [line.partition(":")[0] for line in said[-4:-2]] == ["uniform", "minimax"]
    assert not any("nan" in line for line in said)


@pytest.mark.parametrize(
    ("opponents", "hint"),
    [
        ((), "name opponents"),
        (("nobody",), "no agent called 'nobody'"),
        (("mcts:num_simulations=0",), "must be a whole number of at least 1"),
        (("dqn",), "plays alone"),
    ],
)
def test_opponents_who_are_none_are_refused(player, opponents, hint):
    with pytest.raises(Mistake, match=hint):
        ladder(player, Config(opponents, num_games=2), print)


def test_run_that_has_no_checkpoint_or_is_no_game_is_refused(player, tmp_path):
    empty = run.create(player.experiment(), Training(player.experiment(), print).env.spec, tmp_path)
    with pytest.raises(Mistake, match="has no checkpoint yet"):
        ladder(empty, Config(), print)
    alone = trained(tmp_path, "cliff/sarsa")
    with pytest.raises(Mistake, match="the rules of a game for two"):
        ladder(alone, Config(), print)
