"""The laws that every config of an agent keeps, by discovery (of a task: test_every_task.py)."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from rlplay import config
from rlplay.play import collect, play

NAMES = [name for name in config.names("configs") if "task" not in config.read(name)[1]]
pytestmark = pytest.mark.parametrize("name", NAMES)

SMALL = {
    "env": {"num_envs": 2, "max_steps": 50},
    "agent": {
        "replay_size": 200,
        "learning_starts": 8,
        "steps_per_update": 2,
        "batch_size": 8,
        "horizon": 8,
        "epochs": 2,
        "num_episodes": 2,
    },
}
"""Settings that make a run quick and change nothing of what it is made of."""
EXTRAS = {"half_cheetah": "mujoco", "hopper": "mujoco", "vizdoom": "vizdoom"}
"""Worlds that need a module which may be missing."""


@pytest.fixture(autouse=True)
def _world_is_installed(name):
    if module := EXTRAS.get(name.partition("/")[0]):
        pytest.importorskip(module)


def loaded(name: str, flags: tuple[str, ...] = ()) -> list[Any]:
    """Return the experiments of a config: one, or those of its variants."""
    variants = config.variants(name, flags)
    return [variant.experiment for variant in variants] or [config.load(name, flags)]


def small(name: str) -> Any:
    """Load the first experiment of a config with small settings, where it has them, as flags on the
    command line."""
    first = loaded(name)[0]
    flags = []
    for section, changes in SMALL.items():
        known = {field.name for field in dataclasses.fields(getattr(first, section))}
        flags += [f"--{section}.{key}={value}" for key, value in changes.items() if key in known]
    return loaded(name, (*flags, *(["--agent.device=cpu"] if "dqn" in name else [])))[0]


def test_config_takes_three_steps_of_playing_and_learning(name):
    experiment = small(name)
    env = experiment.env.make()
    agent = experiment.agent.make(env.spec, experiment.seed)
    moments = play(env, agent, env.reset(experiment.seed))
    learned = [agent.learn(collect(moments, agent.horizon)) for _ in range(25)]
    assert all(np.isfinite(value).all() for metrics in learned for value in metrics.values())
    updates = sum("train/loss" in metrics for metrics in learned)
    assert updates >= 3 or not hasattr(experiment.agent, "learning_rate")
    env.close()


def test_every_variant_of_a_config_can_be_made(name):
    agent = loaded(name)[0].agent
    settings = {field.name for field in dataclasses.fields(agent)}
    divides = []
    if {"batch_size", "horizon"} <= settings:  # whole sequences, for agents with memory
        divides = [f"--agent.batch-size={getattr(agent, 'horizon', 1)}"]
    for experiment in loaded(name, ("--env.num-envs=2", *divides)):
        env = experiment.env.make()
        experiment.agent.make(env.spec, experiment.seed)
        env.close()


def test_config_lies_where_its_world_and_agent_say(name):
    if config.variants(name) or name.startswith("sutton_barto/"):
        pytest.skip("it is named after a figure")
    experiment = config.load(name)
    world, agent = name.split("/")
    plain = [re.sub("[^a-z0-9]", "", text) for text in (experiment.env.world, world)]
    assert plain[1] in plain[0]
    assert agent.startswith(experiment.agent.name)


def test_config_says_what_it_is_for(name):
    assert len(config.about("configs", name)) > 20


def test_config_is_scored_on_full_games_with_true_rewards(name):
    for experiment in loaded(name):
        env = experiment.env.for_evaluation()
        assert not getattr(env, "clip_rewards", False)
        assert not getattr(env, "episodic_life", False)


def test_config_learns_and_saves_before_it_ends(name):
    experiment = loaded(name)[0]
    assert experiment.log_every < experiment.num_steps
    assert getattr(experiment.agent, "learning_starts", 0) < experiment.num_steps
    assert getattr(experiment.agent, "epsilon_steps", 0) <= experiment.num_steps
    starts = getattr(experiment.agent, "learning_starts", 0)
    assert starts <= getattr(experiment.agent, "replay_size", starts)
