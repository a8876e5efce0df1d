"""Laws of agents/alphazero.py and of rlplay/positions.py, which is its memory."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from agents import alphazero, uniform
from envs import connect_four, gomoku, gridworld, othello, tictactoe
from rlplay import checkpoint, match, search
from rlplay.core import Array, Decision, Game, Mistake, NonFinite, Step, Trajectory
from rlplay.play import collect, play
from rlplay.positions import Batch, Positions, turned

SMALL = alphazero.Config(
    blocks=1,
    channels=16,
    search=search.Config(num_simulations=6),
    fast_simulations=2,
    full_share=0.5,
    num_simulations_evaluation=6,
    horizon=3,
    replay_size=300,
    learning_starts=30,
    batch_size=16,
    reuse=2.0,
    value_mix=0.25,
    device="cpu",
    precision="float32",
)


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are in one order, so that runs can be compared bit by bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made(world: Any = tictactoe, n: int = 4, seed: int = 0, **settings: Any) -> tuple[Any, Any]:
    """Return an env of n games and an agent for it."""
    env = replace(world.Config() if hasattr(world, "Config") else world, num_envs=n).make()
    return env, replace(SMALL, **settings).make(env.spec, seed)


def learned(env: Any, agent: Any, step: Step, num_times: int) -> tuple[Step, list[dict]]:
    """Play and learn; return the step it came to and the metrics."""
    metrics = []
    for _ in range(num_times):
        trajectory = collect(play(env, agent, step), agent.horizon)
        metrics.append(agent.learn(trajectory))
        step = Step(*(None if leaf is None else leaf[-1] for leaf in trajectory.step))
    return step, metrics


def scripted(game: Game, games: list[list[int]], value: float = 0.5) -> Trajectory:
    """A trajectory of games side by side, each a list of actions; after its end a game stands still
    as the first step of no other, so all must be equally long."""
    state = game.start(len(games))
    moments, decisions = [match.step_at(game, state)], []
    for moves in zip(*games, strict=True):
        action = np.array(moves)
        n = len(action)
        policy = np.eye(game.num_actions, dtype=np.float32)[action]
        notes = {
            "policy": policy,
            "value": np.full(n, value, np.float32),
            "full": np.ones(n, bool),
        }
        decisions.append(Decision(action, notes))
        state = game.play(state, action)
        moments.append(match.step_at(game, state))
    step = Step(*(None if c[0] is None else np.array(c) for c in zip(*moments, strict=True)))
    notes = {name: np.array([d.notes[name] for d in decisions]) for name in decisions[0].notes}
    return Trajectory(step, Decision(np.array([d.action for d in decisions]), notes))


# X takes the left column; X wins. O takes the middle row; O wins.
FIRST_WINS = [0, 1, 3, 2, 6]
SECOND_WINS = [0, 3, 1, 4, 8, 5]
TIC = tictactoe.Config().rules()


@pytest.mark.parametrize("value_mix", [0.0, 0.25, 1.0])
def test_value_to_learn_is_the_movers_result_and_the_searchs_value(value_mix):
    memory = Positions(TIC, 1, 100)
    for moves, sign in ((FIRST_WINS, 1), (SECOND_WINS, -1)):
        before = memory.num_added
        games = memory.add(scripted(TIC, [moves]), value_mix)
        kept = memory.kept[before : memory.num_added]
        assert (games.length.tolist(), games.first.tolist()) == ([len(moves)], [sign])
        assert kept["player"].tolist() == [ply % 2 for ply in range(len(moves))]
        result = np.array([sign * (-1) ** ply for ply in range(len(moves))])
        assert kept["value"] == pytest.approx((1 - value_mix) * result + value_mix * 0.5)
        assert kept["policy"].argmax(1).tolist() == moves
        boards = np.concatenate(states(TIC, moves))
        assert kept["board"].tobytes() == boards.tobytes()


def states(game: Game, moves: list[int]) -> list[Array]:
    """Return the boards [1] before each move."""
    found = [game.start(1)]
    for move in moves[:-1]:
        found.append(game.play(found[-1], np.array([move])))
    return found


def test_player_who_moves_again_after_a_pass_has_its_own_result():
    game = othello.Config(size=4).rules()
    generator = np.random.default_rng(0)
    for _ in range(100):
        state, moves, players = game.start(1), [], []
        while not game.over(state)[0]:
            legal = np.flatnonzero(game.action_mask(state)[0])
            moves.append(int(generator.choice(legal)))
            players.append(int(game.player(state)[0]))
            state = game.play(state, np.array(moves[-1:]))
        score = game.score(state)[0]
        if 16 in moves and score[0] != 0:
            break
    memory = Positions(game, 1, 100)
    memory.add(scripted(game, [moves]), 0.0)
    kept = memory.kept[: memory.num_added]
    assert kept["player"].tolist() == players
    assert kept["value"].tolist() == [score[player] for player in players]
    assert kept["policy"].argmax(1).tolist() == moves
    cells = [player for player, move in zip(players, moves, strict=True) if move != 16]
    assert (np.diff(cells) == 0).any(), "nobody moved twice"


def test_game_that_goes_on_is_not_learned_from_until_it_ends():
    whole = scripted(TIC, [FIRST_WINS])
    memory, parts = Positions(TIC, 1, 100), Positions(TIC, 1, 100)
    memory.add(whole, 0.25)
    for t in range(5):
        assert len(parts) == 0
        step = Step(*(None if leaf is None else leaf[t : t + 2] for leaf in whole.step))
        notes = {name: note[t : t + 1] for name, note in whole.decision.notes.items()}
        parts.add(Trajectory(step, Decision(whole.decision.action[t : t + 1], notes)), 0.25)
    assert parts.kept[:5].tobytes() == memory.kept[:5].tobytes()


def test_only_moves_searched_in_full_are_learned_from():
    trajectory = scripted(TIC, [FIRST_WINS])
    trajectory.decision.notes["full"][[0, 3]] = False
    memory = Positions(TIC, 1, 100)
    games = memory.add(trajectory, 0.0)
    assert (games.length.tolist(), games.num_positions) == ([5], 3)
    assert memory.kept[:3]["policy"].argmax(1).tolist() == [1, 3, 6]
    assert memory.kept[:3]["value"].tolist() == [-1, 1, 1]


def test_decision_at_a_finished_board_is_none():
    env, agent = made(n=3, full_share=1.0)
    step, num_moves = env.reset(0), 0
    for _ in range(10):
        trajectory = collect(play(env, agent, step), agent.horizon)
        live = ~trajectory.step.done[:-1]
        num_moves += int(live.sum())
        assert (trajectory.decision.notes["full"] == live).all()
        agent.learn(trajectory)
        step = Step(*(None if leaf is None else leaf[-1] for leaf in trajectory.step))
    assert not TIC.over(agent.positions.kept["board"][: len(agent.positions)].copy()).any()
    assert len(agent.positions) + agent.positions.count.sum() == num_moves


def test_memory_keeps_the_newest_positions():
    memory = Positions(TIC, 1, 7)
    for moves in (FIRST_WINS, SECOND_WINS, FIRST_WINS):
        memory.add(scripted(TIC, [moves]), 0.0)
    assert (memory.num_added, len(memory)) == (16, 7)
    newest = (SECOND_WINS + FIRST_WINS)[-7:]
    slots = np.arange(16 - 7, 16) % 7
    assert memory.kept[slots]["policy"].argmax(1).tolist() == newest


def test_game_that_is_cut_leaves_nothing_behind():
    memory = Positions(TIC, 1, 100)
    whole = scripted(TIC, [SECOND_WINS])
    step = Step(*(None if leaf is None else leaf[:4] for leaf in whole.step))
    notes = {name: note[:3] for name, note in whole.decision.notes.items()}
    memory.add(Trajectory(step, Decision(whole.decision.action[:3], notes)), 0.0)
    assert memory.count.tolist() == [3]
    memory.cut()
    memory.add(scripted(TIC, [FIRST_WINS]), 0.0)
    assert memory.kept[: len(memory)]["policy"].argmax(1).tolist() == FIRST_WINS


@pytest.mark.parametrize("game", [TIC, othello.Config(size=6).rules(), connect_four.ConnectFour()])
def test_turned_position_is_that_of_the_turned_game(game):
    """Boards, masks and policies turn together: playing the turned moves leads to what `turned`
    makes of the game played."""
    generator = np.random.default_rng(0)
    start = game.observe(game.start(1)).reshape(-1, game.symmetries.board_symmetries.shape[1])
    # Quarter turns of Othello's first board are not that board: its colours change places.
    every = np.flatnonzero(
        (start[:, game.symmetries.board_symmetries] == start[:, None]).all((0, 2))
    )
    assert len(every) >= 2
    plain = game.start(len(every))
    state = plain.copy()
    where = np.argsort(game.symmetries.action_symmetries[every], 1)  # what each action becomes
    for _ in range(6):
        legal = np.flatnonzero(game.action_mask(plain)[0])
        move = int(generator.choice(legal))
        policy = np.tile(np.eye(game.num_actions, dtype=np.float32)[move], (len(every), 1))
        batch = Batch(game.observe(plain), game.action_mask(plain), policy, np.zeros(len(every)))
        found = turned(batch, game.symmetries, every)
        assert (found.planes == game.observe(state)).all()
        assert (found.mask == game.action_mask(state)).all()
        assert (found.policy.argmax(1) == where[:, move]).all()
        plain = game.play(plain, np.full(len(every), move))
        state = game.play(state, where[:, move])


def test_turning_by_the_wrong_permutation_is_seen():
    """The negative control of the law above: to and fro is not the same for quarter turns."""
    quarter = np.flatnonzero((np.argsort(TIC.symmetries[1], 1) != TIC.symmetries[1]).any(1))
    assert len(quarter) == 2
    state = TIC.play(TIC.start(1), np.array([1]))
    batch = Batch(TIC.observe(state), TIC.action_mask(state), np.zeros((1, 9)), np.zeros(1))
    one, other = (turned(batch, TIC.symmetries, quarter[i : i + 1]) for i in range(2))
    assert not (one.planes == other.planes).all()


def test_turning_a_position_that_looks_the_same_from_all_sides_keeps_its_loss():
    memory = Positions(TIC, 1, 1)
    center = TIC.play(TIC.start(1), np.array([4]))
    memory.num_added = 1
    memory.kept["board"], memory.kept["value"] = center, 0.5
    memory.kept["policy"] = [[0.1, 0.15, 0.1, 0.15, 0, 0.15, 0.1, 0.15, 0.1]]
    batches = [memory.sample(8, np.random.default_rng(0), turns) for turns in (False, True)]
    for one, other in zip(*batches, strict=True):
        assert one.tobytes() == other.tobytes()
    assert batches[0].policy.sum(1) == pytest.approx(1, abs=1e-6)


def match_against_uniform(agent: Any, env: Any, num_games: int = 200) -> float:
    other = uniform.Config().make(env.spec, 0)
    protocol = match.Config(num_games=num_games, random_opening=1)
    return match.match(env.game, agent, other, protocol).summary()["score"]


def test_network_learns_to_beat_random_play_without_any_search():
    settings = {
        "search": search.Config(num_simulations=16),
        "num_simulations_evaluation": 0,
        "full_share": 1.0,
        "horizon": 9,
        "replay_size": 5000,
        "learning_starts": 200,
        "batch_size": 64,
        "reuse": 6.0,
        "learning_rate": 5e-3,
        "learning_rate_steps": 6000,
    }
    env, agent = made(n=48, **settings)
    untaught = match_against_uniform(agent, env)
    learned(env, agent, env.reset(0), 14)
    taught = match_against_uniform(agent, env)
    assert untaught < 0.75
    assert taught > 0.85


def test_learned_value_is_high_for_who_can_win_and_low_for_who_cannot_help_it():
    _, agent = made()
    games = [0, 3, 1, 4, 2], [4, 0, 2, 3, 8, 6]  # won by the first player, and by the second
    for moves in games:
        agent.positions.add(scripted(TIC, [moves] * 4), 0.0)
    for _ in range(100):
        agent.update()
    agent.publish()
    for moves in games:
        last_but_one, last = states(TIC, moves)[-2:]  # boards of the loser and of the winner
        _, value = agent.evaluators[0](np.concatenate([last_but_one, last]))
        assert value[0] < -0.7 < 0.7 < value[1]


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Return where two saved states are not the same, bit by bit. Trees have room to spare, in
    which anything may stand."""
    if where.endswith(".tree"):
        return []
    if isinstance(one, dict | list):
        if len(one) != len(other):
            return [where]
        keys = one.keys() | other.keys() if isinstance(one, dict) else range(len(one))
        return [d for key in keys for d in differences(one[key], other[key], f"{where}.{key}")]
    if not isinstance(one, np.ndarray):
        return [] if one == other else [where]
    return [] if one.shape == other.shape and one.tobytes() == other.tobytes() else [where]


VARIANTS = {
    "plain": {},
    "batch norm": {"norm": "batch", "global_pooling": True, "blocks": 2},
    "reuse": {"search": search.Config(num_simulations=6, reuse=True)},
    "gumbel": {"search": search.Config(kind="gumbel", num_simulations=6)},
    "two parts": {"num_parts": 2},
    "resign": {"resign": 0.3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_resumed_run_is_bitwise_the_uninterrupted_one(variant, tmp_path):
    settings = VARIANTS[variant]
    env, agent = made(**settings)
    step, _ = learned(env, agent, env.reset(0), 12)
    assert agent.num_updates > 0
    parts = {**agent.state_dict(), "env": env.state_dict()}
    checkpoint.save(tmp_path, "1", parts)
    learned(env, agent, step, 4)
    loaded = checkpoint.load(tmp_path / "1")
    other_env, other = made(seed=7, **settings)
    other_env.reset(7)
    step = other_env.load_state_dict(loaded["env"])
    other.load_state_dict(loaded)
    assert other.num_updates < agent.num_updates
    learned(other_env, other, step, 4)
    assert differences(agent.state_dict(), other.state_dict()) == []


def test_evaluating_leaves_no_trace_in_what_is_learned():
    trails = []
    for evaluates in (False, True):
        env, agent = made(search=search.Config(num_simulations=6, reuse=True))
        step, _ = learned(env, agent, env.reset(0), 4)
        if evaluates:
            other = tictactoe.Config(num_envs=3).make()
            list(itertools.islice(play(other, agent, other.reset(5), explore=False), 12))
        learned(env, agent, step, 4)
        trails.append(dict(agent.state_dict()))
    assert differences(*trails) == []


def test_boards_are_searched_alike_in_any_company():
    env, agent = made(connect_four, n=70, num_simulations_evaluation=12, num_parts=2)
    learned(env, agent, env.reset(0), 1)
    state, _ = match.openings(env.game, 70, 6, np.random.default_rng(0))
    together = agent.act(match.step_at(env.game, state), explore=False)
    for i in range(0, 70, 10):
        alone = agent.act(match.step_at(env.game, state[i : i + 1]), explore=False)
        assert alone.action[0] == together.action[i]
        assert alone.notes["value"][0] == pytest.approx(together.notes["value"][i], abs=1e-4)
        assert (alone.notes["visits"][0] == together.notes["visits"][i]).all()


def test_playing_to_win_is_the_same_every_time():
    env, agent = made(search=search.Config(num_simulations=6, reuse=True, dirichlet_fraction=0.9))
    learned(env, agent, env.reset(0), 6)
    step = env.reset(3)
    first = agent.act(step, explore=False)
    explored = [agent.act(step, explore=True) for _ in range(2)]
    again = agent.act(step, explore=False)
    assert differences(first._asdict(), again._asdict()) == []
    assert differences(*(one._asdict() for one in explored)) != []


@pytest.mark.parametrize("num_simulations", [0, 1])
@pytest.mark.parametrize("n", [1, 2])
def test_few_simulations_and_few_games_are_no_trouble(num_simulations, n):
    env, agent = made(
        n=n,
        search=search.Config(num_simulations=num_simulations),
        fast_simulations=0,
        num_simulations_evaluation=num_simulations,
    )
    _, metrics = learned(env, agent, env.reset(0), 12)
    assert any("rollout/game_length" in metric for metric in metrics)
    moments = itertools.islice(play(env, agent, env.reset(0), explore=False), 12)
    for moment in moments:
        for note in moment.decision.notes.values():
            assert len(note) == n
            assert np.isfinite(note).all()


def test_metrics_tell_of_games_updates_and_speed():
    env, agent = made(n=8, full_share=1.0)
    _, metrics = learned(env, agent, env.reset(0), 8)
    known: dict[str, float] = {}
    for metric in metrics:
        known |= metric
    assert known["rollout/games"] == agent.num_games > 0
    assert 5 <= known["rollout/game_length"] <= 9
    assert known["rollout/first_player_rate"] + known["rollout/draw_rate"] <= 1
    assert known["train/loss"] == pytest.approx(
        known["train/policy_loss"] + known["train/value_loss"], rel=1e-5
    )
    assert 0 < known["train/policy_entropy"] <= np.log(9) + 1e-6
    assert known["search/mean_batch"] == 8
    assert 0 < known["time/net_share"] < 1
    assert known["time/simulations_per_second"] > 0
    assert known["time/evaluations_per_second"] > 0


def test_every_position_is_learned_from_as_often_as_is_wished():
    env, agent = made(n=8, full_share=1.0, learning_starts=1, reuse=4.0)
    learned(env, agent, env.reset(0), 20)
    drawn = agent.num_updates * SMALL.batch_size
    assert drawn == pytest.approx(4 * agent.positions.num_added, abs=SMALL.batch_size)


def test_games_given_up_are_played_out_but_not_learned_from():
    env, agent = made(n=6, resign=1e-6, full_share=1.0)
    agent.positions.add(scripted(TIC, [FIRST_WINS] * 6), 0.0)  # so that values are not all zero
    for _ in range(20):
        agent.update()
    agent.publish()
    trajectory = collect(play(env, agent, env.reset(0)), 24)
    full, done = trajectory.decision.notes["full"], trajectory.step.done[:-1]
    assert 0 < full.sum() < (~done).sum()
    visits = trajectory.decision.notes["visits"].sum(2)
    assert (visits[~full] == 0).all()
    assert (visits[full] == 6).all()
    assert trajectory.step.terminated.sum() >= 12


def test_moves_after_the_opening_are_the_best_and_those_before_are_drawn():
    config = search.Config(num_simulations=6, temperature_moves=2)
    env, agent = made(n=16, search=config, full_share=1.0)
    trajectory = collect(play(env, agent, env.reset(0)), 5)
    visits = trajectory.decision.notes["visits"]
    best = np.take_along_axis(visits, trajectory.decision.action[..., None], 2)[..., 0]
    is_best = best == visits.max(2)
    assert is_best[2:].all()
    assert not is_best[:2].all()


def test_agent_of_another_game_or_board_is_refused_in_one_sentence():
    _, agent = made(tictactoe)
    state = agent.state_dict()
    _, other = made(connect_four)
    with pytest.raises(Mistake, match="learned tictactoe, which is not connect_four"):
        other.load_state_dict(state)
    _, small = made(gomoku.Config(size=7), n=2)
    _, large = made(gomoku.Config(size=9), n=2)
    with pytest.raises(Mistake, match="choose a run"):
        large.load_state_dict(small.state_dict())
    _, wide = made(tictactoe, channels=24)
    with pytest.raises(Mistake, match="do not fit this network"):
        wide.load_state_dict(state)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(Mistake, match="never start"):
        made(learning_starts=301)
    with pytest.raises(Mistake, match="given up"):
        made(resign=0.9, search=search.Config(reuse=True))
    with pytest.raises(Mistake, match="choose a game"):
        SMALL.make(gridworld.Config().make().spec, 0)


def test_loss_that_is_not_a_number_stops_the_learning_and_changes_nothing():
    env, agent = made()
    learned(env, agent, env.reset(0), 6)
    agent.positions.kept["value"][:] = np.nan
    before = {name: array.copy() for name, array in agent.optimizer.weights().items()}
    with pytest.raises(NonFinite) as caught:
        agent.update()
    assert {*caught.value.batch} == {"planes", "mask", "policy", "value"}
    assert differences(before, agent.optimizer.weights()) == []


def test_world_that_begins_anew_without_a_word_does_no_harm():
    env, agent = made(full_share=1.0)
    for seed in range(8):
        learned(env, agent, env.reset(seed), 1)
    learned(env, agent, env.reset(9), 4)
    assert np.isfinite(agent.positions.kept["value"][: len(agent.positions)]).all()
