"""Laws of rlplay/evaluate.py, and of the random player that lives by the same random choice."""

import json

import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from agents.uniform import Config as UniformConfig
from rlplay.core import Agent, Decision, Mistake, Spec, Step
from rlplay.evaluate import (
    Config,
    Noisy,
    Result,
    bootstrap_interval,
    evaluate,
    interquartile_mean,
    random_legal,
)

NUM_ACTIONS = 4


def drawn_episode(generator):
    """Length and points per step of one episode: the long ones are the good ones."""
    long = generator.random() < 0.5
    return (40, float(generator.integers(5, 9))) if long else (2, float(generator.integers(2, 5)))


class Lottery:
    """N worlds whose episodes are decided by the seed alone; the reward is the clipped score."""

    def __init__(self, num_envs, reference=None, limit=None):
        actions = Discrete(NUM_ACTIONS)
        observations = Box(0, 1, (1,))
        self.spec = Spec(num_envs, observations, actions, reference_scores=reference)
        self.limit = limit
        self.seeds = []

    def reset(self, seed):
        own = [seed + i for i in range(self.spec.num_envs)]
        self.seeds += own
        self.generators = [np.random.default_rng(s) for s in own]
        self.played = np.zeros(self.spec.num_envs, np.int64)
        self.episodes = [drawn_episode(generator) for generator in self.generators]
        return self.show(np.zeros(self.spec.num_envs), np.zeros(self.spec.num_envs, bool))

    def step(self, action):
        n = self.spec.num_envs
        assert action.shape == (n,)
        assert action.dtype == np.int64
        assert self.action_mask[np.arange(n), action].all(), "an illegal action"
        score, started = np.zeros(n), self.done
        for i in range(n):
            if started[i]:
                self.episodes[i], self.played[i] = drawn_episode(self.generators[i]), 0
            else:
                score[i], self.played[i] = self.episodes[i][1], self.played[i] + 1
        return self.show(score, ~started)

    def show(self, score, moved):
        n = self.spec.num_envs
        terminated = moved & (self.played >= [length for length, _ in self.episodes])
        cut = np.full(n, False) if self.limit is None else moved & (self.played >= self.limit)
        self.done = terminated | cut
        masks = [generator.random(NUM_ACTIONS) < 0.5 for generator in self.generators]
        self.action_mask = np.array(masks)
        self.action_mask[:, 2] |= ~self.action_mask.any(axis=1)
        points = score[:, None].astype(np.float32)
        return Step.at(
            np.zeros((n, 1), np.float32),
            NUM_ACTIONS,
            action_mask=self.action_mask,
            reward=np.sign(points),
            score=points,
            terminated=terminated,
            truncated=cut & ~terminated,
        )


class First(Agent):
    """Takes the first legal action, and remembers what it was asked."""

    def __init__(self):
        self.explored = []
        self.rewards = 0.0

    def act(self, step, explore=True):
        self.explored.append(explore)
        self.rewards += float(step.reward.sum())
        return Decision(step.action_mask.argmax(axis=1), {"value": step.score[:, 0]})


def expected_episodes(config):
    seeds = [config.seed + e for e in range(config.num_episodes)]
    return np.array([drawn_episode(np.random.default_rng(seed)) for seed in seeds])


@pytest.mark.parametrize("num_envs", [1, 3, 10, 64])
def test_every_episode_is_counted_once_whatever_the_number_of_envs(num_envs):
    config, env = Config(num_episodes=30), Lottery(num_envs)
    result = evaluate(env, First(), config)
    lengths, points = expected_episodes(config).T
    assert result.lengths.tolist() == lengths.tolist()
    assert result.scores.tolist() == (lengths * points).tolist()
    assert not result.stalled.any()
    assert len(set(env.seeds)) == len(env.seeds)


def test_evaluation_is_unclipped():
    env, agent = Lottery(30), First()
    result = evaluate(env, agent, Config(num_episodes=30, num_envs=30))
    assert result.scores.min() >= 4
    # Negative control: the agent saw more episodes than were counted, and still far less reward.
    assert agent.rewards < 0.5 * result.scores.sum()


def first_to_finish(env, agent, num_episodes, seed):
    """The usual way to get it wrong: keep whichever episodes are over first."""
    step, scores, running = env.reset(seed), [], np.zeros(env.spec.num_envs)
    while len(scores) < num_episodes:
        step = env.step(agent.act(step).action)
        running += step.score[:, 0]
        scores += running[step.done].tolist()
        running[step.done] = 0
    return np.array(scores[:num_episodes])


def test_long_episodes_count_as_often_as_short_ones():
    config = Config(num_episodes=200, num_envs=200)
    mean = 0.5 * 40 * 6.5 + 0.5 * 2 * 3.0
    assert evaluate(Lottery(200), First(), config).scores.mean() == pytest.approx(mean, rel=0.2)
    # Negative control.
    assert first_to_finish(Lottery(200), First(), 200, config.seed).mean() < 0.5 * mean


def test_same_seed_gives_the_same_result_and_another_seed_another():
    def scores(**settings):
        agent = UniformConfig().make(Lottery(7).spec, seed=0)
        return evaluate(Lottery(7), agent, Config(**settings)).scores.tolist()

    assert scores(epsilon=0.3) == scores(epsilon=0.3)
    assert scores() != scores(seed=0)


def test_agent_is_asked_for_its_best_and_not_to_explore():
    agent = First()
    evaluate(Lottery(5), agent, Config(num_episodes=5))
    assert agent.explored
    assert not any(agent.explored)


@pytest.mark.parametrize("limit", [None, 10])
def test_an_endless_episode_is_cut_and_reported_as_stalled(limit):
    """Also where the world has the same limit, and truncates on that very step."""
    config = Config(num_episodes=30, max_steps=10)
    result = evaluate(Lottery(8, limit=limit), First(), config)
    lengths, points = expected_episodes(config).T
    assert result.stalled.tolist() == (lengths > 10).tolist()
    assert result.lengths.tolist() == np.minimum(lengths, 10).tolist()
    assert result.scores.tolist() == (np.minimum(lengths, 10) * points).tolist()
    assert result.summary()["stalled"] == (lengths > 10).sum() > 0


def test_an_episode_that_ends_by_itself_is_not_stalled():
    at_the_very_last_step = evaluate(Lottery(8), First(), Config(max_steps=40))
    by_the_limit_of_its_world = evaluate(Lottery(8, limit=10), First(), Config(max_steps=40))
    assert at_the_very_last_step.lengths.max() == 40
    assert by_the_limit_of_its_world.lengths.max() == 10
    assert not at_the_very_last_step.stalled.any()
    assert not by_the_limit_of_its_world.stalled.any()


def result_of(scores, reference=None):
    n = len(scores)
    return Result(np.array(scores, float), np.full(n, 5), np.zeros(n, bool), reference)


def test_summary_holds_the_numbers_worked_out_by_hand():
    summary = result_of([0, 1, 2, 3, 4, 5, 6, 100]).summary()
    assert summary["mean"] == 121 / 8
    assert summary["median"] == summary["iqm"] == 3.5
    assert (summary["min"], summary["max"], summary["episodes"]) == (0, 100, 8)
    assert summary["mean_length"] == 5
    assert summary["std"] == pytest.approx(np.sqrt(10091 / 8 - (121 / 8) ** 2))
    assert summary["ci_low"] < summary["mean"] < summary["ci_high"]
    assert json.loads(json.dumps(summary)) == summary


def test_one_episode_has_a_summary():
    summary = result_of([7]).summary()
    assert summary["mean"] == summary["iqm"] == summary["ci_low"] == summary["ci_high"] == 7


def test_human_normalized_is_0_for_random_and_1_for_a_person_and_absent_when_unknown():
    pong = (-20.7, 9.3)
    assert result_of([-20.7], pong).summary()["human_normalized"] == 0
    assert result_of([9.3], pong).summary()["human_normalized"] == pytest.approx(1)
    assert result_of([24.3], pong).summary()["human_normalized"] == pytest.approx(1.5)
    assert "human_normalized" not in result_of([3]).summary()
    assert evaluate(Lottery(2, pong), First(), Config(num_episodes=2)).reference == pong


def test_interquartile_mean_agrees_with_dropping_one_by_one():
    generator = np.random.default_rng(0)
    for n in range(1, 40):
        scores = generator.normal(size=n) ** 3
        left = scores.tolist()
        for _ in range(int(0.25 * n)):
            left.remove(min(left))
            left.remove(max(left))
        assert interquartile_mean(scores) == pytest.approx(sum(left) / len(left))


def test_bootstrap_agrees_with_a_plain_loop():
    generator = np.random.default_rng(1)
    scores = generator.exponential(10, 30)
    means = sorted(float(np.mean(generator.choice(scores, 30))) for _ in range(10_000))
    width = means[9750] - means[250]
    low, high = bootstrap_interval(scores)
    assert low == pytest.approx(means[250], abs=0.04 * width)
    assert high == pytest.approx(means[9750], abs=0.04 * width)
    assert (low, high) == bootstrap_interval(scores)


def test_interval_covers_the_true_mean_about_19_times_in_20():
    generator = np.random.default_rng(2)
    draws = [bootstrap_interval(generator.normal(3, 2, 50), 1000) for _ in range(1000)]
    assert 0.92 < np.mean([low <= 3 <= high for low, high in draws]) < 0.97


def shares(chosen, mask):
    """How often each action was chosen, [A], over many rows with the same mask."""
    return np.bincount(chosen, minlength=mask.shape[1]) / len(chosen)


def masked(rows, legal=(1, 3, 4)):
    mask = np.zeros((rows, 6), bool)
    mask[:, list(legal)] = True
    return mask, Step.at(np.zeros((rows, 1), np.float32), 6, action_mask=mask)


UNIFORM_OVER_LEGAL = pytest.approx([0, 1 / 3, 0, 1 / 3, 1 / 3, 0], abs=0.01)


def test_noise_of_1_is_the_random_player():
    mask, step = masked(50_000)
    assert shares(Noisy(First(), 1.0, 0).act(step).action, mask) == UNIFORM_OVER_LEGAL


def test_noise_takes_its_share_and_leaves_the_rest_and_the_notes():
    mask, step = masked(50_000)
    decision = Noisy(First(), 0.3, 0).act(step)
    share = shares(decision.action, mask)
    assert share == pytest.approx([0, 0.8, 0, 0.1, 0.1, 0], abs=0.01)
    assert "value" in decision.notes
    assert shares(First().act(step).action, mask).tolist() == [0, 1, 0, 0, 0, 0]


def test_noise_never_plays_an_illegal_action():
    """The lottery checks, with another mask at every step."""
    evaluate(Lottery(10), First(), Config(epsilon=1.0))
    evaluate(Lottery(10), UniformConfig().make(Lottery(10).spec, 0), Config(epsilon=0.5))


def test_noise_on_continuous_actions_is_a_mistake():
    env = Lottery(1)
    env.spec = Spec(1, Box(0, 1, (1,)), Box(-1, 1, (2,)))
    with pytest.raises(Mistake, match="epsilon"):
        evaluate(env, First(), Config(epsilon=0.05))


def test_random_choice_is_legal_under_any_mask_and_refuses_an_empty_one():
    generator = np.random.default_rng(3)
    mask = generator.random((20_000, 7)) < 0.3
    mask[:, 5] |= ~mask.any(axis=1)
    assert mask[np.arange(len(mask)), random_legal(mask, generator)].all()
    mask[7] = False
    with pytest.raises(ValueError, match="high"):
        random_legal(mask, generator)


def uniform(action_space, seed=0):
    return UniformConfig().make(Spec(1, Box(0, 1, (1,)), action_space), seed)


def test_uniform_is_uniform_over_legal_actions():
    mask, step = masked(50_000)
    assert shares(uniform(Discrete(6)).act(step).action, mask) == UNIFORM_OVER_LEGAL


def test_uniform_fills_a_box():
    space = Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 6.0], np.float32))
    action = uniform(space).act(Step.at(np.zeros((50_000, 1)), 0)).action
    assert action.dtype == np.float32
    assert ((action >= space.low) & (action <= space.high)).all()
    assert action.mean(axis=0) == pytest.approx([0, 4], abs=0.02)
    assert action.std(axis=0) == pytest.approx(np.array([2, 4]) / np.sqrt(12), abs=0.02)


@pytest.mark.parametrize("space", [Box(-np.inf, 1, (2,)), MultiDiscrete([2, 3])])
def test_uniform_refuses_actions_without_a_uniform_choice(space):
    with pytest.raises(Mistake, match="uniform"):
        uniform(space)


def test_uniform_resumes_bitwise_even_through_json():
    _, step = masked(100)
    agent, other = uniform(Discrete(6), seed=0), uniform(Discrete(6), seed=1)
    agent.act(step)
    other.load_state_dict(json.loads(json.dumps(agent.state_dict())))
    for _ in range(5):
        assert agent.act(step).action.tolist() == other.act(step).action.tolist()
    # Negative control: without the saved state the two differ.
    fresh = uniform(Discrete(6), seed=1)
    assert agent.act(step).action.tolist() != fresh.act(step).action.tolist()
