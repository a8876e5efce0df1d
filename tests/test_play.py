"""Laws of rlplay/play.py: who sees what, and how moments become a trajectory."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
from gymnasium.spaces import Box, Discrete

from rlplay.core import Agent, Decision, Spec, Step
from rlplay.play import collect, play


class Clock:
    """Two worlds that show how many steps were taken, and what was done last."""

    def __init__(self, with_state: bool = False) -> None:
        self.spec = Spec(2, Box(0, 99, (2,)), Discrete(5))
        self.with_state = with_state

    def reset(self, seed: int) -> Step:
        self.time = 0
        return self.show(np.zeros(2))

    def step(self, action: np.ndarray) -> Step:
        self.time += 1
        return self.show(action)

    def show(self, action: np.ndarray) -> Step:
        seen = np.stack([np.full(2, self.time), action], axis=1).astype(np.float32)
        reward = np.full((2, 1), self.time, np.float32)
        state = np.array([self.time, -self.time]) if self.with_state else None
        return Step.at(seen, 5, reward=reward, state=state)


class Counting(Agent):
    """Takes the actions 0, 1, 2, ... in the first world and 1, 2, 3, ... in the second."""

    def __init__(self) -> None:
        self.explored: list[bool] = []

    def act(self, step: Step, explore: bool = True) -> Decision:
        count = len(self.explored)
        self.explored.append(explore)
        action = np.array([count, count + 1]) % 5
        return Decision(action, {"count": np.full(2, count), "twice": np.full((2, 3), 2.0 * count)})


def test_agent_and_env_take_turns():
    env, agent = Clock(), Counting()
    moments = list(islice(play(env, agent, env.reset(0)), 4))
    for t, moment in enumerate(moments):
        assert moment.step.observation[0, 0] == t
        assert moment.following.observation[0, 0] == t + 1
        assert moment.decision.notes["count"][0] == t
        assert moment.following.observation[:, 1].tolist() == moment.decision.action.tolist()
    for one, two in pairwise(moments):
        assert two.step is one.following


def test_nothing_is_played_before_it_is_asked_for():
    env, agent = Clock(), Counting()
    moments = play(env, agent, env.reset(0))
    assert env.time == 0
    collect(moments, 3)
    assert env.time == len(agent.explored) == 3


def test_explore_is_handed_on():
    env = Clock()
    for explore in (True, False):
        agent = Counting()
        list(islice(play(env, agent, env.reset(0), explore), 3))
        assert agent.explored == [explore] * 3


def test_trajectory_has_one_more_step_than_decisions_and_shares_it_with_the_next():
    env, agent = Clock(), Counting()
    moments = play(env, agent, env.reset(0))
    first, second = collect(moments, 3), collect(moments, 4)
    assert first.step.observation.shape == (4, 2, 2)
    assert second.step.observation.shape == (5, 2, 2)
    assert first.decision.action.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert second.decision.action.shape == (4, 2)
    assert first.step.observation[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert second.step.observation[:, 0, 0].tolist() == [3, 4, 5, 6, 7]
    for last, again in zip(first.step[:8], second.step[:8], strict=True):
        assert last.dtype == again.dtype
        assert np.array_equal(last[-1], again[0])
    # decision[t] leads from step[t] to step[t + 1].
    assert np.array_equal(first.step.observation[1:, :, 1], first.decision.action)
    assert first.step.reward.shape == (4, 2, 1)
    assert first.step.action_mask.shape == (4, 2, 5)


def test_notes_are_stacked_by_name():
    env = Clock()
    notes = collect(play(env, Counting(), env.reset(0)), 3).decision.notes
    assert notes["count"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert notes["twice"].shape == (3, 2, 3)


def test_states_are_stacked_where_there_are_any():
    plain, planned = Clock(), Clock(with_state=True)
    assert collect(play(plain, Counting(), plain.reset(0)), 2).step.state is None
    trajectory = collect(play(planned, Counting(), planned.reset(0)), 2)
    assert trajectory.step.state.tolist() == [[0, 0], [1, -1], [2, -2]]


def test_trajectory_keeps_what_it_saw_when_the_world_goes_on():
    env = Clock()
    moments = play(env, Counting(), env.reset(0))
    trajectory = collect(moments, 2)
    before = trajectory.step.observation.copy()
    trajectory.step.observation[0] = 99  # and what is done to it is not seen by others
    following = collect(moments, 2)
    assert np.array_equal(trajectory.step.observation[1:], before[1:])
    assert following.step.observation[0, 0, 0] == 2
