"""Laws of the mcts agent: how strong it is, what it notes, and where it cannot play."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from agents import mcts, uniform
from envs import connect_four, othello, tictactoe
from rlplay import checkpoint, match
from rlplay.core import Mistake, Spec
from rlplay.play import play


def make(world: Any, seed: int = 0, num_envs: int = 4, **settings: Any) -> tuple[Any, mcts.MCTS]:
    env = world.Config(num_envs=num_envs).make()
    return env, mcts.Config(**{"num_simulations": 60, **settings}).make(env.spec, seed)


@pytest.mark.parametrize("world", [tictactoe, connect_four, othello])
def test_notes_are_what_the_search_found(world):
    env, agent = make(world, num_rollouts=2)
    step = env.reset(0)
    decision = agent.act(step)
    notes = decision.notes
    assert {*notes} == {"policy", "value", "visits", "q_values"}
    assert (notes["visits"].sum(1) == 60).all()
    assert np.array_equal(decision.action, notes["visits"].argmax(1))
    assert decision.action.dtype == np.int64
    assert (np.abs(notes["value"]) <= 1).all()
    assert not notes["visits"][~step.action_mask].any()
    env.close()


def test_it_beats_random_play_from_either_side_and_more_simulations_beat_fewer():
    env, agent = make(connect_four, num_simulations=100)
    terms = match.Config(num_games=60)
    against = uniform.Config().make(env.spec, 0)
    assert match.match(env.spec.model, agent, against, terms).scores.mean() > 0.95
    _, weak = make(connect_four, num_simulations=10)
    assert match.match(env.spec.model, agent, weak, terms).scores.mean() > 0.7
    env.close()


def test_tictactoe_is_hardly_ever_lost():
    env, agent = make(tictactoe, num_simulations=1000)
    against = uniform.Config().make(env.spec, 0)
    found = match.match(env.spec.model, agent, against, match.Config(200, random_opening=0))
    assert (found.scores > 0).all()
    assert found.scores.mean() > 0.9
    env.close()


@pytest.mark.parametrize("reuse", [False, True])
def test_saved_agent_plays_on_the_same(reuse, tmp_path):
    games = []
    env, agent = make(connect_four, reuse=reuse, temperature=1.0)
    moments = play(env, agent, env.reset(0))
    for _ in range(5):
        next(moments)
    checkpoint.save(tmp_path, "1", {**agent.state_dict(), "env": env.state_dict()})
    saved = checkpoint.load(tmp_path / "1")
    for seed in (1, 2):
        env, agent = make(connect_four, seed=seed, reuse=reuse, temperature=1.0)
        env.reset(9)
        step = env.load_state_dict(saved["env"])
        agent.load_state_dict(saved)
        moments = play(env, agent, step)
        games.append([next(moments).decision.action.tolist() for _ in range(40)])
    assert games[0] == games[1]


def test_reuse_plays_on_with_what_is_known():
    env, agent = make(connect_four, reuse=True, num_simulations=200)
    step = env.reset(0)
    first = agent.act(step)
    second = agent.act(env.step(first.action))
    assert (second.notes["visits"].sum(1) > 200).all()
    agent.cut()
    assert (agent.act(step).notes["visits"].sum(1) == 200).all()


def test_temperature_is_only_to_explore():
    env, agent = make(connect_four, num_envs=200, temperature=1.0, num_simulations=20)
    step = env.reset(0)
    drawn, best = agent.act(step, explore=True), agent.act(step, explore=False)
    assert (drawn.action != drawn.notes["visits"].argmax(1)).mean() > 0.2
    assert np.array_equal(best.action, best.notes["visits"].argmax(1))


def test_world_without_rules_is_refused_in_one_sentence():
    with pytest.raises(Mistake, match="choose an agent that learns") as refusal:
        mcts.Config().make(Spec(2, Discrete(3), Discrete(2)), 0)
    assert len(str(refusal.value).splitlines()) == 1
