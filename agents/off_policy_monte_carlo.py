"""Off-policy Monte-Carlo (Sutton & Barto 2018, sections 5.5 to 5.7), in tables: act by a policy b
that tries everything, and learn of another one, pi.

    G_t = r_{t+1} + discount G_{t+1}
    W_t = pi(a_t|s_t) / b(a_t|s_t) W_{t+1}   how much likelier the rest was under pi than under b

    weighted   V(s) <- V(s) + W / C(s) (G - V(s)),   C(s) the sum of all W so far
    ordinary   V(s) <- V(s) + 1 / n(s) (W G - V(s))

Ordinary importance sampling is unbiased on first visits and may vary without bounds; weighted is
biased at first and varies less. With a pi that is greedy by Q, which it improves (section 5.7), the
same is learned of Q(s, a), weighted, backwards through the episode up to the last action that pi
would not have taken. An episode that was cut short is taken to have earned, from its last state on,
what that state was believed to be worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numba import njit

from rlplay.core import Array, Decision, Mistake, Range, Spec, Step, Trajectory
from rlplay.learners import draw, remember, soft
from rlplay.values import ActionValues, Control, Prediction, StateValues, probabilities


@dataclass(frozen=True)
class Config(Prediction):
    name: Literal["off_policy_monte_carlo"] = "off_policy_monte_carlo"
    policy: str = "greedy"
    """The policy to learn of: greedy, which improves with what is learned; or a given one to
    evaluate: uniform, optimal (where the world has a model), one that goes with the world, such as
    Blackjack's stick_on_20, or a .npy file of probabilities [S, A]."""
    epsilon: Annotated[float, Range(0, 1)] = 0.1
    """Share of random actions among those of that policy, while learning; 1 for random play."""
    weighting: Literal["weighted", "ordinary"] = "weighted"
    """How returns are weighed when a given policy is evaluated."""
    visits: Literal["first", "every"] = "first"
    """Which visits to a state in an episode count when a given policy is evaluated."""

    def make(self, spec: Spec, seed: int, *, learns: bool = True) -> Improving | Evaluating:
        """Build the agent. Raises Mistake where states or actions are not discrete, and where there
        is no such policy."""
        if self.policy != "greedy":
            return Evaluating(self, spec, seed, learns)
        if self.weighting == "ordinary":
            raise Mistake("greedy is learned of by weighted returns: set agent.weighting=weighted")
        return Improving(self, spec, seed, learns)


class Improving(ActionValues):
    """Learns what actions are worth if all that follows is greedy. Its `count` is C, the sum of the
    weights."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        settings = Control(
            name=config.name,
            discount=config.discount,
            epsilon=config.epsilon,
            initial_value=config.initial_value,
        )
        super().__init__(settings, spec, seed, learns)
        self.cut()

    def cut(self) -> None:
        """Forget the episodes under way."""
        n, a = self.num_learners, self.num_actions
        self.memory = {
            "length": np.zeros(n, np.int64),
            "state": np.zeros((n, 16), np.int64),
            "mask": np.zeros((n, 16, a), bool),
            "action": np.zeros((n, 16), np.int64),
            "probability": np.zeros((n, 16)),
            "reward": np.zeros((n, 16)),
            "discount": np.zeros((n, 16)),
        }

    def act(self, step: Step, explore: bool = True) -> Decision:
        if not explore:
            return super().act(step, explore)
        q_values = self.known("q", step.observation)
        behaviour = soft(q_values, step.action_mask, self.settings.epsilon)
        action = draw(behaviour, self.generator)
        probability = behaviour[np.arange(len(action)), action]
        return Decision(action, {"q_values": q_values, "probability": probability})

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, memory = self.transition(trajectory, self.settings.discount), self.memory
        remember(
            memory,
            t.live,
            state=t.state,
            mask=t.mask,
            action=t.action,
            probability=trajectory.decision.notes["probability"][0],
            reward=t.reward,
            discount=t.discount,
        )
        if t.over.any():
            improve(
                self.tables["q"],
                self.tables["count"],
                memory["state"],
                memory["mask"],
                memory["action"],
                memory["probability"],
                memory["reward"],
                memory["discount"],
                memory["length"],
                t.over,
                self.expected(t, epsilon=0.0),
            )
            memory["length"][t.over] = 0
        return {}


@njit(cache=True)
def improve(
    q, cumulative, state, mask, action, probability, reward, discount, length, over, last_value
):
    """Learn from the episodes that are over: q and the cumulative weights [N, R, A]; mask [N, L, A]
    bool; state, action, probability, reward, discount [N, L]; length, over, last_value [N]."""
    for i in np.flatnonzero(over):
        g, weight = last_value[i], 1.0
        for t in range(length[i] - 1, -1, -1):
            s, a = state[i, t], action[i, t]
            g = reward[i, t] + discount[i, t] * g
            cumulative[i, s, a] += weight
            q[i, s, a] += weight / cumulative[i, s, a] * (g - q[i, s, a])
            greedy = a
            for b in range(q.shape[2]):
                better = q[i, s, b] > q[i, s, greedy]
                if mask[i, t, b] and (better or (b < greedy and q[i, s, b] == q[i, s, greedy])):
                    greedy = b
            if a != greedy:
                break
            weight /= probability[i, t]


class Evaluating(StateValues):
    """Learns what states are worth under a given policy. Its `count` is C, the sum of the weights,
    or, for ordinary importance sampling, the number of visits."""

    def __init__(self, config: Config, spec: Spec, seed: int, learns: bool) -> None:
        super().__init__(config, spec, seed, learns)
        self.config = config
        self.cut()

    def cut(self) -> None:
        """Forget the episodes under way."""
        n = self.num_learners
        self.memory = {
            "length": np.zeros(n, np.int64),
            "state": np.zeros((n, 16), np.int64),
            "ratio": np.zeros((n, 16)),
            "reward": np.zeros((n, 16)),
            "discount": np.zeros((n, 16)),
        }

    def act(self, step: Step, explore: bool = True) -> Decision:
        if not explore:
            return super().act(step, explore)
        policy = probabilities(self.policy, step)
        random = step.action_mask / step.action_mask.sum(1, keepdims=True)
        behaviour = (1 - self.config.epsilon) * policy + self.config.epsilon * random
        action = draw(behaviour, self.generator)
        who = np.arange(len(action))
        ratio = policy[who, action] / behaviour[who, action]
        value = self.known("value", step.observation)
        return Decision(action, {"value": value, "policy": policy, "ratio": ratio})

    def learn(self, trajectory: Trajectory) -> dict[str, float | Array]:
        t, memory = self.transition(trajectory, self.config.discount), self.memory
        ratio = trajectory.decision.notes["ratio"][0]
        remember(memory, t.live, state=t.state, ratio=ratio, reward=t.reward, discount=t.discount)
        if t.over.any():
            evaluate(
                self.tables["value"],
                self.tables["count"],
                memory["state"],
                memory["ratio"],
                memory["reward"],
                memory["discount"],
                memory["length"],
                t.over,
                t.next_state,
                self.config.weighting == "weighted",
                self.config.visits == "first",
            )
            memory["length"][t.over] = 0
        return self.error(t.over)


@njit(cache=True)
def evaluate(
    value, count, state, ratio, reward, discount, length, over, last_state, weighted, first_visit
):
    """Learn from the episodes that are over: value, count [N, R]; state, ratio, reward, discount
    [N, L]; length, over, last_state [N]."""
    for i in np.flatnonzero(over):
        returns, weights = np.empty(length[i]), np.empty(length[i])
        g, weight = value[i, last_state[i]], 1.0
        for t in range(length[i] - 1, -1, -1):
            g = reward[i, t] + discount[i, t] * g
            weight *= ratio[i, t]
            returns[t], weights[t] = g, weight
        seen = np.zeros(value.shape[1], np.bool_)
        for t in range(length[i]):
            s = state[i, t]
            if first_visit and seen[s]:
                continue
            seen[s] = True
            if not weighted:
                count[i, s] += 1
                value[i, s] += (weights[t] * returns[t] - value[i, s]) / count[i, s]
            elif weights[t] > 0:
                count[i, s] += weights[t]
                value[i, s] += weights[t] / count[i, s] * (returns[t] - value[i, s])
