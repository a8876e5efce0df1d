"""Any algorithm of Stable-Baselines3 (Raffin et al. 2021) and sb3-contrib as an agent of the house.

The worlds, the loop, the logs and the checkpoints are ours; the networks, the buffers, exploration
and `train` are SB3's. In one env, or where all envs end at once, an algorithm learns here what it
learns alone, to the last bit. Else the envs get out of step, for an episode's end costs a moment of
ours and none of SB3's, and every buffer holds the k-th transitions of all envs in its k-th row:
  off policy, those of an env that is ahead wait for the others;
  on policy, they are dropped when the others have filled the rollout, for the policy then changes.
What stands at the end of an episode is never acted on and enters no buffer.

Where some actions are illegal, `maskable_ppo` is told so; for the others an illegal action stands
for the legal one of the nearest number. SB3's callbacks, its own evaluation, hindsight replay and
gSDE have no place here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from agents import _sb3_model
from agents._sb3_loop import SB3, OffPolicy, OnPolicy
from agents._sb3_state import Randomness
from rlplay.core import Mistake, Range, Spec
from rlplay.nets import encoders, hardware


@dataclass(frozen=True)
class Encoder(encoders.Config):
    name: Literal["own", "mlp", "nips2013", "nature", "impala"] = "own"  # pyright: ignore[reportIncompatibleVariableOverride]
    """own for what SB3 takes; mlp, nips2013, nature and impala are the encoders of the house, with
    SB3's layers behind them."""


@dataclass(frozen=True)
class Config:
    name: Literal["sb3"] = "sb3"
    algorithm: Literal[
        "ppo",
        "a2c",
        "dqn",
        "sac",
        "td3",
        "ddpg",
        "qr_dqn",
        "tqc",
        "trpo",
        "recurrent_ppo",
        "maskable_ppo",
    ] = "ppo"
    """Who learns: a class of SB3 or sb3-contrib."""
    policy: Literal["auto", "mlp", "cnn"] = "auto"
    """SB3's MlpPolicy or CnnPolicy, or those with Lstm for recurrent_ppo; auto is cnn for pictures
    of at least 36 x 36 pixels."""
    encoder: Encoder = field(default_factory=Encoder)
    """The network from observation to features."""
    hyperparameters: dict[str, bool | int | float | str] = field(default_factory=dict)
    """Keyword arguments of the algorithm, as SB3 calls them, such as `n_steps: 128`; what is left
    out is SB3's default. lin_3e-4 is a learning rate or clip range that falls linearly to 0;
    action_noise is the deviation of Gaussian noise on actions in -1..1."""
    policy_kwargs: dict[str, bool | int | float | str | tuple[int, ...]] = field(
        default_factory=dict
    )
    """Keyword arguments of its network, such as `net_arch: [256, 256]`, `activation_fn: ReLU` or
    `lstm_hidden_size: 64`."""
    total_timesteps: Annotated[int, Range(1)] = 1_000_000
    """Length of the whole training, agent steps, of which SB3's schedules are shares: set it to
    the num_steps of the run."""
    load: str = ""
    """A zip that SB3 has saved, to start from; hyperparameters given here count more than its."""
    code_in_loaded_file_may_run: bool = False
    """Such a zip holds pickled Python, which can do anything that you can. Only where this is true
    is it opened at all."""
    device: hardware.DeviceName = "auto"
    """auto is CUDA where there is one."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> SB3:
        """Build the agent. Raises Mistake where the algorithm cannot play in an env with this spec,
        for settings it does not have, and for a file to load whose code may not run."""
        eyes = self.encoder
        if eyes.name == "own" and (eyes.weights or eyes.learn != "all"):
            raise Mistake(
                "the encoder own is SB3's, which starts from no run and learns whole: set"
                " agent.encoder.name=nature, or another one of the house"
            )
        if eyes.rate_decay != 1:
            raise Mistake(
                "SB3 learns with one step size for all layers: leave out agent.encoder.rate_decay"
            )
        randomness = Randomness(hardware.device(self.device))
        with randomness:
            model = _sb3_model.build(self, spec, seed, learns)
        kind = OnPolicy if isinstance(model, OnPolicyAlgorithm) else OffPolicy
        return kind(model, randomness, spec, learns, self.total_timesteps)
