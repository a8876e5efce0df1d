"""An agent behind an encoder that does not learn: each moment is looked at once, and what the agent
acts on, remembers and learns from are the features of it.

What is computed is what the agent would compute with the frozen encoder inside; only the work is
less. Features are held as they are computed: in float32 as they are, in bfloat16 as float16, which
holds its numbers from 6e-5 to 65504 exactly. An agent that remembers frames, each once however many
are stacked, keeps the encoder inside where features would take more memory than they do; and so
does one that normalizes what it observes, for which no encoder stands still.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from torch import nn

from rlplay.core import Agent, AgentConfig, Array, Decision, Mistake, Spec, State, Step, Trajectory
from rlplay.nets import encoders, hardware

FEATURES = "features"
"""The note in which a decision carries what the encoder made of its moment."""


def make(config: AgentConfig, spec: Spec, seed: int, *, learns: bool = True) -> Agent:
    """Build an agent, behind its encoder where that is frozen and it pays. Raises Mistake where it
    cannot play an env with this spec."""
    if pays(config, spec):
        return Frozen(config, spec, seed, learns)
    return config.make(spec, seed, learns=learns)


def pays(config: Any, spec: Spec) -> bool:
    """Tell whether features are to stand for what is observed."""
    encoder = getattr(config, "encoder", None)
    if not isinstance(encoder, encoders.Config) or encoder.learn != "none":
        return False
    if getattr(config, "normalize_observations", False):
        return False
    if not hasattr(config, "replay_size"):  # nothing is remembered for long
        return True
    space = spec.observation_space
    assert space.shape is not None
    assert space.dtype is not None
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        one = torch.zeros(1, *encoders.prepared_shape(space))
        num_features = encoder.make(space)(one)[-1].numel()
    _, dtype = numbers(config)
    frame = np.prod(space.shape) * space.dtype.itemsize / spec.num_stacked
    return num_features * dtype.itemsize <= frame


def numbers(config: Any) -> tuple[torch.device, torch.dtype]:
    """Return where an agent computes, and in which numbers."""
    device = hardware.device(config.device)
    name: hardware.PrecisionName = getattr(config, "precision", "float32")
    return device, hardware.precision(name, device, pays=config.encoder.name != "mlp")


class Frozen(Agent):
    """What is saved of it is what would be saved of the agent with the encoder inside."""

    def __init__(self, config: Any, spec: Spec, seed: int, learns: bool) -> None:
        self.space = spec.observation_space
        whole = config.make(spec, seed, learns=False).state_dict()["weights"]
        self.device, self.dtype = numbers(config)
        with torch.random.fork_rng(devices=[]):
            self.encoder = config.encoder.make(self.space)
        self.prefixes = places(whole, self.encoder)
        with torch.inference_mode():
            example = torch.zeros(1, *encoders.prepared_shape(self.space))
            num_features = self.encoder(example)[-1].numel()
        self.kept = np.float32 if self.dtype == torch.float32 else np.float16
        given = {"weights": "", "learn": "all", "rate_decay": 1.0}
        as_it_is = dataclasses.replace(config.encoder, name="mlp", hidden=(), **given)
        own: dict[str, Any] = {"encoder": as_it_is}
        if hasattr(config, "precision"):
            own["precision"] = "float32" if self.dtype == torch.float32 else "bfloat16"
        seen = Box(-np.inf, np.inf, (num_features,), self.kept)
        shown = dataclasses.replace(spec, observation_space=seen, num_stacked=1)
        threads = torch.get_num_threads()
        self.agent: Agent = dataclasses.replace(config, **own).make(shown, seed, learns=learns)
        torch.set_num_threads(threads)  # which an agent for vectors would do with fewer of
        self.horizon = self.agent.horizon
        state = {name: part for name, part in self.agent.state_dict().items() if name != "replay"}
        self.agent.load_state_dict(overlaid(state, whole))
        self.look(whole)
        self.acting: Frozen | None = None

    def look(self, weights: Mapping[str, Array]) -> None:
        """Take over the encoder from an agent's weights."""
        first = self.prefixes[0] if self.prefixes else ""
        self.latest: tuple[Array, Array] | None = None  # seen by this encoder
        self.weights = {name: np.array(weights[first + name]) for name in self.encoder.state_dict()}
        with torch.no_grad():
            self.encoder.float()
            for name, tensor in self.encoder.state_dict().items():
                tensor.copy_(torch.from_numpy(self.weights[name]))
            self.encoder.to(self.device, self.dtype)
            self.encoder.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def features(self, observation: Array) -> Array:
        """Return the features [N, F] of the next moment of what is learned from, [N, ...]. The last
        moment of a trajectory, which is looked at to learn, is the first of the next one."""
        if self.latest is None or not np.array_equal(self.latest[0], observation):
            self.latest = observation, self.encoded(observation)
        return self.latest[1]

    @torch.inference_mode()
    def encoded(self, observation: Array) -> Array:
        """Return the features [N, F] of observations [N, ...]."""
        seen = torch.from_numpy(observation).to(self.device)
        seen = encoders.prepare(seen, self.space, self.dtype)
        features = self.encoder(seen)[-1].flatten(1)
        if self.kept is np.float16:
            features = features.clamp(-65504, 65504).half()
        return features.cpu().numpy()

    def act(self, step: Step, explore: bool = True) -> Decision:
        if not explore:
            return self.agent.act(step._replace(observation=self.encoded(step.observation)), False)
        features = self.features(step.observation)
        action, notes = self.agent.act(step._replace(observation=features), True)
        return Decision(action, {**notes, FEATURES: features})

    def learn(self, trajectory: Trajectory) -> Mapping[str, float | Array]:
        step, decision = trajectory
        notes = dict(decision.notes)
        last = self.features(step.observation[-1])
        features = np.concatenate([notes.pop(FEATURES), last[None]])  # [T + 1, N, F]
        decision = decision._replace(notes=notes)
        return self.agent.learn(Trajectory(step._replace(observation=features), decision))

    def actor(self) -> Agent:
        if self.acting is None:
            self.acting = copy.copy(self)
        self.acting.agent = self.agent.actor()
        return self.acting

    def cut(self) -> None:
        self.agent.cut()

    def begin(self) -> None:
        self.agent.begin()

    def state_dict(self) -> State:
        state = self.agent.state_dict()
        mine = {place + name: x for place in self.prefixes for name, x in self.weights.items()}
        return {**state, "weights": {**mine, **state["weights"]}}

    def load_state_dict(self, state: State) -> None:
        """Raises Mistake where it is another network's."""
        weights = dict(state["weights"])
        if self.prefixes and self.prefixes[0] not in places(weights, self.encoder):
            raise Mistake(
                "the saved weights have no such encoder: set agent.encoder as it was, or start a"
                " new run with `rlplay train`"
            )
        self.look(weights)
        for place in self.prefixes:
            for name in self.weights:
                weights.pop(place + name, None)
        self.agent.load_state_dict({**state, "weights": weights})


def places(weights: Mapping[str, Array], encoder: nn.Module) -> list[str]:
    """Return what the names of an encoder's arrays begin with among the weights of a network: once
    for each place where it has such an encoder."""
    wanted = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    first = next(iter(wanted), None)
    if first is None:
        return []
    starts = [name.removesuffix(first) for name in weights if name.endswith(f".{first}")]
    return [
        start
        for start in starts
        if all(
            start + name in weights and weights[start + name].shape == shape
            for name, shape in wanted.items()
        )
    ]


def overlaid(state: Mapping[str, Any], arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Return a saved state in which some arrays, wherever in it they stand by their names, are
    these."""
    return {
        name: overlaid(value, arrays)
        if isinstance(value, Mapping)
        else arrays[name]
        if name in arrays and isinstance(value, np.ndarray)
        else value
        for name, value in state.items()
    }
