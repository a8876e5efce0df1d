"""What a network should have said: learning targets as pure functions of tensors.

Knows neither networks nor memory. Where the future is worth nothing (terminated), `discount` is
0; where an episode was only cut short (truncated), it is not, and the target bootstraps.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def q_target(
    returns: Tensor,
    discount: Tensor,
    next_q_target: Tensor,
    next_q_online: Tensor | None = None,
) -> Tensor:
    """Return the Q-learning target [B], without gradient (Mnih et al., 2015).

    returns        [B] discounted rewards of the n steps on the way to the next state
    discount       [B] worth today of a reward there: gamma ** n, or 0 after a termination
    next_q_target  [B, A] action values there, from the target network
    next_q_online  [B, A] the same from the online network, which then chooses the action that the
                   target network values: Double DQN (van Hasselt et al., 2016)
    """
    choice = next_q_target if next_q_online is None else next_q_online
    value = next_q_target.gather(1, choice.argmax(1, keepdim=True)).squeeze(1)
    return returns + discount * value


@torch.no_grad()
def gae(reward: Tensor, discount: Tensor, value: Tensor, live: Tensor, trace: float) -> Tensor:
    """Return generalized advantage estimates [T, N], 0 where not live (Schulman et al., 2016).

    reward    [T, N] earned on arriving at moment t + 1
    discount  [T, N] worth at t of one unit at t + 1: gamma, or 0 after a termination; negative
              where the opponent in a game of two moves there
    value     [T + 1, N] of every moment; that of an episode's last moment is bootstrapped from
    live      [T, N] bool, false where the episode was over at t: the action there was ignored, and
              nothing flows back across it
    trace     lambda: 0 looks one step ahead, 1 to the end of the episode or of the rollout
    """
    error = reward + discount * value[1:] - value[:-1]
    # An advantage that is not live is 0 before anything can flow back from it.
    weight, error = trace * discount * live, error * live
    advantage = torch.empty_like(error)
    following = torch.zeros_like(error[0])
    for t in range(len(error) - 1, -1, -1):
        torch.addcmul(error[t], weight[t], following, out=advantage[t])
        following = advantage[t]
    return advantage


def lambda_return(
    reward: Tensor, discount: Tensor, value: Tensor, live: Tensor, trace: float
) -> Tensor:
    """Return lambda-returns [T, N] (Sutton, 1988): what `value` should have said. The arguments are
    those of `gae`; where not live, the value itself."""
    return value[:-1] + gae(reward, discount, value, live, trace)


@torch.no_grad()
def n_step_return(
    reward: Tensor, discount: Tensor, value: Tensor, live: Tensor, num_steps: int
) -> Tensor:
    """Return [T, N] rewards of the next `num_steps` steps and the value after them, or as many as
    there are to the end of the episode or of the rollout (Sutton, 1988). The other arguments are
    those of `gae`; where not live, the value itself."""
    returns = value
    for _ in range(num_steps):
        following = torch.where(live, reward + discount * returns[1:], value[:-1])
        returns = torch.cat([following, value[-1:]])
    return returns[:-1]
