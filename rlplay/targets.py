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
