"""Settings -> a model of Stable-Baselines3 or sb3-contrib, every wrong one refused in a sentence.

The model is given no world to play: it is told the spaces and the number of envs, and that is all
it ever asks for where another loop plays for it.
"""

from __future__ import annotations

import copy
import inspect
import math
import random
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import Space
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete
from sb3_contrib import QRDQN, TQC, TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.noise import NormalActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from rlplay.core import Mistake, Spec, nearest
from rlplay.nets import encoders, hardware

if TYPE_CHECKING:
    from agents.sb3 import Config

FEW, ANY = (Discrete, MultiDiscrete, MultiBinary), (Box, Discrete, MultiDiscrete, MultiBinary)
ALGORITHMS: dict[str, tuple[type[BaseAlgorithm], tuple[type[Space], ...]]] = {
    "ppo": (PPO, ANY),
    "a2c": (A2C, ANY),
    "dqn": (DQN, (Discrete,)),
    "sac": (SAC, (Box,)),
    "td3": (TD3, (Box,)),
    "ddpg": (DDPG, (Box,)),
    "qr_dqn": (QRDQN, (Discrete,)),
    "tqc": (TQC, (Box,)),
    "trpo": (TRPO, ANY),
    "recurrent_ppo": (RecurrentPPO, ANY),
    "maskable_ppo": (MaskablePPO, FEW),
}
"""Each algorithm, and the kinds of actions that it can choose from."""

OURS = frozenset(inspect.signature(BaseAlgorithm.__init__).parameters) - {"learning_rate"} | {
    "_init_setup_model",
    "optimize_memory_usage",
    "replay_buffer_class",
    "replay_buffer_kwargs",
    "rollout_buffer_class",
    "rollout_buffer_kwargs",
    "use_sde_at_warmup",
}
"""Arguments of an algorithm that the house decides, or that no plain value can be. gSDE is left
out: its noise outlives an update and is in none of the states that SB3 saves."""
OURS_IN_NETWORKS = frozenset(
    [
        "self",
        "observation_space",
        "action_space",
        "lr_schedule",
        "use_sde",
        "full_std",
        "use_expln",
        "clip_mean",
        "squash_output",
        "features_extractor_class",
        "features_extractor_kwargs",
        "optimizer_class",
        "optimizer_kwargs",
        "lstm_kwargs",
    ]
)
SCHEDULED = ("learning_rate", "clip_range", "clip_range_vf")
SMALLEST = {"gradient_steps": -1, "learning_starts": 0, "top_quantiles_to_drop_per_net": 0}
"""Of whole numbers; 1 for all others."""
SMALLEST_PICTURE = 36  # pixels, that SB3's convolutions can look at


class World(VecEnv):
    """Spaces and a number of envs, which is all of a world that SB3 is shown."""

    def __init__(self, spec: Spec) -> None:
        # A space draws random numbers, and the model owns those that it draws.
        super().__init__(spec.num_envs, spec.observation_space, copy.deepcopy(spec.action_space))

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * self.num_envs  # its render_mode

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs

    def played_elsewhere(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("the loop plays the world, not the model")

    reset = step_async = step_wait = close = set_attr = env_method = played_elsewhere


class Features(BaseFeaturesExtractor):
    """An encoder of the house as SB3's features extractor: prepared [B, ...] -> features [B, F]."""

    def __init__(self, observation_space: Space, encoder: encoders.Config) -> None:
        net = encoder.make(observation_space)
        example = torch.zeros(1, *encoders.prepared_shape(observation_space))
        super().__init__(observation_space, net(example)[-1].numel())
        self.net = net

    def forward(self, observation: Tensor) -> Tensor:
        return self.net(observation)[-1].flatten(1)


def build(config: Config, spec: Spec, seed: int, learns: bool) -> BaseAlgorithm:
    """Return the model. Raises Mistake where it cannot play there, and for settings that it does
    not have or cannot work with. Draws from torch's and numpy's global random numbers."""
    kind, _ = ALGORITHMS[config.algorithm]
    check_spec(config, spec)
    given = checked(config.hyperparameters, kind.__init__, OURS, "agent.hyperparameters")
    settings = adapted(kind, given, spec)
    if learns:
        check_batches(kind, settings, spec)
        check_memory(kind, settings, spec)
    elif issubclass(kind, OffPolicyAlgorithm):
        settings["buffer_size"] = 1
    else:  # the smallest that may be
        settings |= {name: 2 for name in ("n_steps", "batch_size") if name in arguments(kind)}
    common = {"env": World(spec), "device": hardware.device(config.device), "seed": seed}
    before = random.getstate()
    try:
        if config.load:
            model = load(config, kind, {**common, **settings})
        else:
            policy, policy_kwargs = network(config, kind, spec)
            model = kind(policy, policy_kwargs=policy_kwargs, **common, **settings)
    except (AssertionError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise Mistake(f"Stable-Baselines3 refuses this {config.algorithm}: {reason}") from error
    finally:
        random.setstate(before)
    if model.observation_space.shape != spec.observation_space.shape:
        raise Mistake(
            f"Stable-Baselines3 takes pictures of shape {spec.observation_space.shape} to be"
            " [H, W, C]; choose another agent with agent.name"
        )
    if model.action_noise is not None and spec.num_envs > 1:
        model.action_noise = VectorizedActionNoise(model.action_noise, spec.num_envs)
    model.set_logger(Logger(None, []))
    return model


def check_spec(config: Config, spec: Spec) -> None:
    """Raise Mistake where the algorithm cannot play an env with this spec."""
    space = spec.action_space
    if isinstance(space, Box) and not (np.isfinite(space.low) & np.isfinite(space.high)).all():
        raise Mistake(
            f"the sb3 agent needs actions that have bounds, and those of this env, {space}, have"
            " none; choose another env with env.name or env.id"
        )
    able = [name for name, (_, spaces) in ALGORITHMS.items() if isinstance(space, spaces)]
    if config.algorithm not in able:
        raise Mistake(
            f"the algorithm {config.algorithm} of the sb3 agent cannot choose from {space} actions;"
            f" set agent.algorithm to {' or '.join(able) or 'none: choose another agent'}"
        )
    if spec.num_players != 1:
        raise Mistake("the sb3 agent plays alone, but this env has several players")


def arguments(kind: type[BaseAlgorithm]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind.__init__).parameters


def checked(
    given: Mapping[str, Any], function: Callable[..., Any], ours: Collection[str], path: str
) -> dict[str, Any]:
    """Return `given` as keyword arguments of `function`. Raises Mistake for one that it does not
    have, that is among `ours`, or whose value is nothing like its default."""
    known = {name: p for name, p in inspect.signature(function).parameters.items()}
    names = [name for name in known if name not in ours]
    for name, value in given.items():
        if name not in names:
            hint = nearest(name, names) or f"; there are {', '.join(names)}"
            raise Mistake(f"{path} has no setting {name!r}{hint}")
        default, wanted = known[name].default, ""
        number = type(value) in (int, float)
        if isinstance(default, bool):
            wanted = "" if isinstance(value, bool) else "true or false"
        elif type(default) is int:
            least = SMALLEST.get(name, 1)
            wanted = "" if type(value) is int and value >= least else f"a whole number >= {least}"
        elif type(default) is float and not (name in SCHEDULED and isinstance(value, str)):
            wanted = "" if number and 0 <= value < math.inf else "a number >= 0"
        if wanted:
            raise Mistake(f"{path}.{name} must be {wanted}, not {value!r}")
    return dict(given)


def adapted(kind: type[BaseAlgorithm], given: dict[str, Any], spec: Spec) -> dict[str, Any]:
    """Return hyperparameters as SB3 wants them: schedules and noise as objects."""
    settings = dict(given)
    for name in SCHEDULED:
        if isinstance(text := settings.get(name), str):
            try:
                start = float(text.removeprefix("lin_")) if text.startswith("lin_") else math.nan
            except ValueError:
                start = math.nan
            if not 0 <= start < math.inf:
                raise Mistake(
                    f"agent.hyperparameters.{name} must be a number or, to fall linearly to 0, a"
                    f" word such as lin_3e-4, not {text!r}"
                )
            settings[name] = LinearSchedule(start, 0.0, 1.0)
    if "action_noise" in settings:
        deviation = settings["action_noise"]
        if type(deviation) not in (int, float) or not 0 <= deviation < math.inf:
            raise Mistake("agent.hyperparameters.action_noise must be a deviation such as 0.1")
        shape = spec.action_space.shape or ()
        settings["action_noise"] = NormalActionNoise(
            np.zeros(shape), np.full(shape, float(deviation))
        )
    if issubclass(kind, OffPolicyAlgorithm) and type(settings.get("train_freq", 1)) is not int:
        raise Mistake("agent.hyperparameters.train_freq must be a whole number of steps")
    return settings


def check_batches(kind: type[BaseAlgorithm], settings: dict[str, Any], spec: Spec) -> None:
    """Raise Mistake where mini-batches do not divide a rollout: the last would be too small."""
    defaults = {name: parameter.default for name, parameter in arguments(kind).items()}
    if not issubclass(kind, OnPolicyAlgorithm) or "batch_size" not in defaults:
        return
    length = (defaults | settings)["n_steps"]
    rollout, batch = length * spec.num_envs, (defaults | settings)["batch_size"]
    if rollout % batch:
        fitting = [size for size in range(2, batch) if rollout % size == 0]
        raise Mistake(
            f"agent.hyperparameters.batch_size {batch} does not divide the rollout of n_steps"
            f" {length} in {spec.num_envs} envs; set it to {max(fitting, default=rollout)}"
        )


def check_memory(kind: type[BaseAlgorithm], settings: dict[str, Any], spec: Spec) -> None:
    """Raise Mistake where the replay memory fits nowhere: SB3 stores every observation twice."""
    if not issubclass(kind, OffPolicyAlgorithm):
        return
    size = settings.get("buffer_size", arguments(kind)["buffer_size"].default)
    space = spec.observation_space
    one = 2 * np.zeros(space.shape or (1,), space.dtype).nbytes
    free = hardware.free_memory(torch.device("cpu"))
    if size * one > 0.9 * free:
        raise Mistake(
            f"a replay memory of {size:,} moments needs {size * one / 1e9:.1f} GB, but"
            f" {free / 1e9:.1f} GB are free; set agent.hyperparameters.buffer_size to"
            f" {int(0.8 * free / one)} or less"
        )


def network(config: Config, kind: type[BaseAlgorithm], spec: Spec) -> tuple[str, dict[str, Any]]:
    """Return SB3's name of the policy and its keyword arguments."""
    shape, own = spec.observation_space.shape or (), config.encoder.name == "own"
    picture = is_image_space(spec.observation_space) and min(shape[1:]) >= SMALLEST_PICTURE
    looks = {"auto": picture and own, "cnn": True, "mlp": False}[config.policy]
    if looks and not own:
        raise Mistake("agent.policy cnn has an encoder of its own: leave out agent.encoder")
    alias = f"{'Cnn' if looks else 'Mlp'}{'Lstm' * issubclass(kind, RecurrentPPO)}Policy"
    function = kind.policy_aliases[alias].__init__
    kwargs = checked(config.policy_kwargs, function, OURS_IN_NETWORKS, "agent.policy_kwargs")
    if "net_arch" in kwargs:
        if not isinstance(widths := kwargs["net_arch"], tuple):
            raise Mistake(f"agent.policy_kwargs.net_arch must be a list of widths, not {widths!r}")
        kwargs["net_arch"] = list(widths)
    if "activation_fn" in kwargs:
        name = kwargs["activation_fn"]
        kwargs["activation_fn"] = getattr(nn, str(name), None)
        if not inspect.isclass(kwargs["activation_fn"]):
            hint = nearest(str(name), ["ReLU", "Tanh", "ELU", "GELU", "SiLU", "LeakyReLU"])
            raise Mistake(f"agent.policy_kwargs.activation_fn {name!r} is no layer of torch{hint}")
    if not own:
        kwargs["features_extractor_class"] = Features
        kwargs["features_extractor_kwargs"] = {"encoder": config.encoder}
    return alias, kwargs


def load(config: Config, kind: type[BaseAlgorithm], settings: dict[str, Any]) -> BaseAlgorithm:
    """Return the model in a zip that SB3 has saved. Raises Mistake, before the file is opened,
    where its code may not run; and where it holds no such model."""
    path = Path(config.load)
    if not config.code_in_loaded_file_may_run:
        raise Mistake(
            f"{path} is not loaded: a file of Stable-Baselines3 holds pickled Python, which can do"
            " anything on this machine that you can; if you trust whoever made it, set"
            " agent.code_in_loaded_file_may_run=true"
        )
    if config.policy != "auto" or config.encoder.name != "own" or config.policy_kwargs:
        raise Mistake(
            "the network is that of the loaded file: leave out agent.policy, agent.encoder and"
            " agent.policy_kwargs"
        )
    if not path.is_file():
        raise Mistake(
            f"there is no file {path} to load; set agent.load to a zip that SB3 has saved"
        )
    try:
        model = kind.load(path, **settings)
    except Exception as error:  # whatever a foreign file does
        reason = " ".join(str(error).split())
        raise Mistake(f"{path} holds no {config.algorithm} for this env: {reason}") from error
    model.num_timesteps = 0
    return model
