"""Planning from a model: policy evaluation, policy iteration (Howard 1960), its modified form
(Puterman & Shin 1978), and value iteration (Bellman 1957): synchronous, Gauss-Seidel, or in the
order of prioritized sweeping (Moore & Atkeson 1993). Every solver goes sweep by sweep.

    V(s) <- max_a (r(s, a) + discount sum_s' P(s' | s, a) V(s'))

How much is known of the error. With a discount below 1, `error_bound` holds for every state: from
the least and the largest change of a sweep (MacQueen 1966, Porteus 1971; where no episode ever ends
only their difference counts, so few sweeps are enough) and what float64 may round. With discount 1
the greedy policy is evaluated exactly now and then. Once no action is better than what it does, no
policy by which episodes end with certainty is better, and `error_bound` is the distance to its
values; before that it is infinite. (Rounding may hide a gain of TIES a step.)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete

from rlplay.core import Array, Mistake, Spec, State, nearest
from rlplay.model import TOLERANCE, Model
from rlplay.sweeps import TIES, Tables, in_place, largest, one_hot, prioritized

Order = Literal["synchronous", "gauss_seidel", "prioritized"]
DIRECT = 2000
"""Up to so many states linear equations are solved by elimination, beyond by iteration if it gets
there."""


class Plan(NamedTuple):
    """What a solver found."""

    values: Array  # [S] float64
    policy: Array  # [S] int64, 0 in terminal states
    error_bound: float  # how far any value may be from that of the best policy
    sweeps: int


def policy_values(model: Model, policy: Array, discount: float) -> Array:
    """Return what each state is worth under a policy [S, A] of probabilities, [S] float64: the
    solution of (I - discount P) v = r. Raises Mistake for what is no policy of this model, or one
    under which an undiscounted episode never ends."""
    check_discount(discount)
    tables = Tables.of(model)
    return solve_linear(tables.under(checked(policy, tables.legal, "the policy")), discount).values


def optimal(model: Model, discount: float, error: float = 1e-9) -> Plan:
    """Solve a model, whatever its size. Raises Mistake where its values are infinite."""
    tables = Tables.of(model, "auto")
    value = tables.scale[1] / (1 - discount or 1)  # no state is worth more
    error = max(error, 10 * tables.rounding(np.array([value])) / (1 - discount or 1))
    if tables.num_states <= DIRECT or discount == 1:
        return PolicyIteration(tables, discount).solve(error)
    return ValueIteration(tables, discount).solve(error)


class Solution(NamedTuple):
    values: Array  # [S] float64
    error: float  # certified, of any value
    longest: float  # most steps before the end, discounted, from any state


def solve_linear(chain: Tables, discount: float) -> Solution:
    """Evaluate tables of one action. For x >= 0 and (I - discount P) x >= c > 0 no row of the
    inverse sums to more than max(x) / c, which turns the residual into a bound of the error.
    Raises Mistake where an undiscounted episode never ends."""
    from scipy.sparse import csc_matrix, csr_matrix, identity
    from scipy.sparse.linalg import bicgstab, splu

    size, rows = chain.num_states, chain.rows
    reward = np.where(chain.terminal, 0, rows.reward)
    if discount == 1 and len(endless := np.flatnonzero(chain.ending(chain.legal) < 0)):
        raise Mistake(
            f"under this policy an episode from state {endless[0]} never ends, and so has no"
            " undiscounted value; set the discount below 1"
        )
    following = rows.next_state.astype(np.int32)
    moves = csr_matrix((rows.probability, following, rows.offsets), (size, size))
    matrix = csr_matrix(identity(size) - discount * moves)
    factors: Any = None

    def solve(right: Array) -> Array:
        nonlocal factors
        x, left = np.zeros(size), right
        for _ in range(4):  # solving again for what is left over restores the last digits
            if largest(left) <= 1e-14 * (largest(right) + largest(x)):
                break
            step, failed = np.zeros(0), 1
            if factors is None and size > DIRECT:
                with np.errstate(all="ignore"):  # where it does not get there, numbers may overflow
                    step, failed = bicgstab(matrix, left, rtol=1e-8, maxiter=500)
            if failed:
                factors = factors or splu(csc_matrix(matrix))
                step = factors.solve(left)
            x = x + step
            left = right - matrix @ x
        return x

    values = solve(reward)
    longest = 1 / (1 - discount) if discount < 1 else math.inf
    if discount == 1:
        steps = np.maximum(solve(np.ones(size)), 0)
        least = float(np.min(matrix @ steps))
        longest = largest(steps) / least if least > 0 else math.inf
    residual = largest(reward - matrix @ values) + chain.rounding(values)
    return Solution(values, residual * longest, longest)


class Solver:
    """Values of a model, and how far they may be from the best."""

    def __init__(self, tables: Tables, discount: float) -> None:
        """Start from values of 0. Raises Mistake for a discount outside [0, 1], or of 1 where
        episodes cannot end."""
        check_discount(discount)
        self.tables, self.discount = tables, discount
        if discount == 1 and len(endless := np.flatnonzero(tables.ending(tables.legal) < 0)):
            raise Mistake(
                f"undiscounted, an episode from state {endless[0]} has no end whatever is done;"
                " set the discount below 1, such as 0.99"
            )
        self.values = np.zeros(tables.num_states)
        self.sweeps = 0
        self.residual = math.inf  # largest change of any value by the latest sweep
        self.error_bound = math.inf  # how far any value may be from that of the best policy
        self.optimum: Solution | None = None  # with discount 1, once known
        self.settled = False  # whether more sweeps would change nothing

    def sweep(self) -> None:
        """Bring every value closer to that of the best policy."""
        raise NotImplementedError

    def policy(self) -> Array:
        """Return what is best by what is known, [S] int64."""
        return self.tables.greedy(self.values, self.discount)

    def solve(self, error: float = 1e-8, max_sweeps: int = 1_000_000) -> Plan:
        """Sweep until the error is certainly no larger. Raises Mistake where that cannot be.

        With discount 1 it is enough to find the best policy: its values are solved for, and no
        sweep makes them any better. The plan's `error_bound` then says how far rounding may have
        moved them, which can be more than `error` where episodes are long."""
        while self.error_bound > error and self.optimum is None:
            at_float_limit = self.error_bound <= 2 * self.float_limit()
            if self.settled or self.sweeps >= max_sweeps or at_float_limit:
                raise Mistake(
                    f"after {self.sweeps} sweeps the error is still {self.error_bound:.3g}, not"
                    f" {error:g}; allow a larger error, more sweeps or a smaller discount"
                )
            self.sweep()
        if self.optimum is not None:
            self.values = self.optimum.values
            self.error_bound = self.optimum.error
        return Plan(self.values, self.policy(), self.error_bound, self.sweeps)

    def float_limit(self) -> float:
        """Return the error that rounding alone may cause."""
        if self.discount == 1:
            return 0.0
        return self.tables.rounding(self.values) / (1 - self.discount)

    def bound(self, low: float, high: float, moves: bool) -> None:
        """Note that the best values are between `low` and `high` above these, and no further from
        them than where an episode ends; if they may be moved, and none ends, to the middle."""
        if moves and self.tables.closed:
            self.values += (low + high) / 2
            error = (high - low) / 2
        else:
            error = max(abs(low), abs(high))
        inexact = TOLERANCE / (1 - self.discount) * max(abs(low), abs(high))  # sums may miss one
        self.error_bound = error + inexact + self.float_limit()

    def bound_undiscounted(self) -> None:
        """Evaluate the greedy policy after 1, 2, 4, 8, ... sweeps until it is the best."""
        if self.optimum is None and self.sweeps & (self.sweeps - 1) == 0:
            tables = self.tables
            policy = one_hot(tables.greedy(self.values, 1.0), tables.legal)
            chain = tables.under(policy)
            if (chain.ending(chain.legal) >= 0).all():
                solution = solve_linear(chain, 1.0)
                best, _, _, gain = tables.sweep(solution.values, 1.0)
                if gain <= TIES * largest(best):
                    error = solution.error + max(gain, 0.0) * solution.longest
                    self.optimum = solution._replace(error=error)
        if self.optimum is not None:
            distance = largest(self.optimum.values - self.values)
            self.error_bound = distance + self.optimum.error

    def state_dict(self) -> State:
        arrays = {"values": self.values}
        own = {"sweeps": self.sweeps}
        if self.optimum is not None:
            arrays["optimum"] = self.optimum.values
            own |= {"error": self.optimum.error, "longest": self.optimum.longest}
        return {"weights": arrays, "agent": own}

    def load_state_dict(self, state: State) -> None:
        """Take over saved values. Raises Mistake where they are of another model."""
        arrays, own = state["weights"], state["agent"]
        if arrays["values"].shape != self.values.shape:
            raise Mistake(
                f"the plan was saved for a world of {len(arrays['values'])} states,"
                f" and this one has {len(self.values)}"
            )
        self.values, self.sweeps = np.array(arrays["values"]), own["sweeps"]
        if "optimum" in arrays:
            self.optimum = Solution(np.array(arrays["optimum"]), own["error"], own["longest"])


class ValueIteration(Solver):
    """Sweeps that back up every state once. `order` is "synchronous" (all from the old values),
    "gauss_seidel" (each from the newest), or "prioritized" (as many backups as there are states, at
    any time of the state that may be furthest from its backup)."""

    def __init__(self, tables: Tables, discount: float, order: Order = "synchronous") -> None:
        super().__init__(tables, discount)
        self.order = order
        self.span = math.inf  # below which Gauss-Seidel next moves all values
        self.priority = np.zeros(0)
        if order == "prioritized":
            self.priority = np.abs(tables.sweep(self.values, discount)[0])

    def sweep(self) -> None:
        tables, discount = self.tables, self.discount
        self.sweeps += 1
        if self.order == "prioritized":
            floor = np.finfo(float).eps * largest(self.values)
            last, values = (self.priority, floor, len(self.values)), self.values
            prioritized(tables.rows, tables.predecessors, discount, values, *last)
            high = float(self.priority.max())
            low, beyond, moves = -high, 1 / (1 - discount or 1), False
        else:
            beyond, moves = discount / (1 - discount or 1), self.order == "synchronous"
            if moves:
                self.values, _, low, high = tables.sweep(self.values, discount)
            else:
                low, high = in_place(tables.rows, discount, self.values)
                low, high = min(low, 0.0), max(high, 0.0)
                # Moving all values alike may undo what sweeping did, unless the bound shrinks.
                if beyond * (high - low) < self.span:
                    moves, self.span = True, 0.9 * beyond * (high - low)
        self.residual = max(abs(low), abs(high))
        if discount < 1:
            self.bound(beyond * low, beyond * high, moves)
        else:
            self.bound_undiscounted()

    def state_dict(self) -> State:
        state = super().state_dict()
        arrays = {**state["weights"], "priority": self.priority}
        own = {**state["agent"], "span": self.span}
        return {"weights": arrays, "agent": own}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.priority = np.array(state["weights"]["priority"])
        self.span = state["agent"]["span"]


class PolicyIteration(Solver):
    """A sweep evaluates the policy, exactly or by `evaluation_sweeps`, and then improves it. Starts
    from a policy [S, A] of probabilities, by default any action with equal probability."""

    def __init__(
        self,
        tables: Tables,
        discount: float,
        evaluation_sweeps: int = 0,
        policy: Array | None = None,
    ) -> None:
        super().__init__(tables, discount)
        self.evaluation_sweeps = evaluation_sweeps
        self.current = equal_chances(tables.legal) if policy is None else policy  # [S, A] float64

    def policy(self) -> Array:
        return super().policy() if self.evaluation_sweeps else self.current.argmax(1)

    def sweep(self) -> None:
        self.sweeps += 1
        if self.evaluation_sweeps:
            self.sweep_modified()
            return
        tables, discount = self.tables, self.discount
        solution = solve_linear(tables.under(self.current), discount)
        self.values = solution.values
        q_values = tables.action_values(self.values, discount)
        best = np.where(tables.terminal, 0, q_values.max(1))
        self.residual = gain = max(0.0, float((best - self.values).max()))
        # An action is left only for one that is better beyond doubt, so that none comes back.
        doubt = 2 * solution.error + tables.rounding(self.values)
        policy = tables.greedy(self.values, discount)
        if (self.current.max(1) == ~tables.terminal).all():
            before = self.current.argmax(1)
            stays = q_values[np.arange(len(before)), before] >= best - doubt
            policy = np.where(stays, before, policy)
        improved = one_hot(policy, tables.legal).astype(np.float64)
        self.settled = bool((improved == self.current).all())
        self.current = improved
        if discount < 1:
            self.error_bound = gain / (1 - discount) + solution.error + self.float_limit()
        elif gain <= doubt:
            error = solution.error + gain * solution.longest
            self.optimum, self.error_bound = solution._replace(error=error), error

    def sweep_modified(self) -> None:
        tables, discount = self.tables, self.discount
        if self.sweeps > 1:
            chain = tables.under(self.current)
            for _ in range(self.evaluation_sweeps):
                self.values = chain.sweep(self.values, discount)[0]
        self.values, policy, low, high = tables.sweep(self.values, discount)
        self.residual = max(abs(low), abs(high))
        self.current = one_hot(policy, tables.legal).astype(np.float64)
        if discount == 1:
            self.bound_undiscounted()
            return
        beyond = discount / (1 - discount)
        self.bound(beyond * low, beyond * high, True)

    def state_dict(self) -> State:
        state = super().state_dict()
        return {**state, "weights": {**state["weights"], "policy": self.current}}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self.current = np.array(state["weights"]["policy"])


def equal_chances(legal: Array) -> Array:
    """Return the policy by which every legal action [S, A] bool is equally likely."""
    return legal / np.maximum(legal.sum(1, keepdims=True), 1)


def check_discount(discount: float) -> None:
    if not 0 <= discount <= 1:
        raise Mistake(f"a discount must be between 0 and 1, and {discount:g} is not")


def checked(policy: Array, legal: Array, name: str) -> Array:
    """Return a policy as [S, A] float64. Raises Mistake where it is none."""
    policy = np.asarray(policy, np.float64)
    if policy.shape != legal.shape:
        raise Mistake(
            f"{name} must have a row for each of {legal.shape[0]} states and a column for each of"
            f" {legal.shape[1]} actions, and has the shape {policy.shape}"
        )
    if not (policy >= 0).all():
        raise Mistake(f"{name} must give probabilities, and {policy.min():.6g} is none")
    if (wrong := (policy > 0) & ~legal).any():
        state, action = np.argwhere(wrong)[0]
        raise Mistake(f"{name} would take action {action} in state {state}, where it is illegal")
    missed = np.abs(policy.sum(1) - 1) > TOLERANCE
    if (missed & legal.any(1)).any():
        state = np.flatnonzero(missed & legal.any(1))[0]
        total = policy[state].sum()
        raise Mistake(f"{name}'s probabilities in state {state} sum to {total:.6g}, not 1")
    return policy


def policy_of(spec: Spec, name: str, discount: float) -> Array:
    """Return a policy by name, [S, A] float64: one of `spec.policies`, "uniform", "optimal" by the
    world's model, or the path of an .npy file. Raises Mistake where there is none."""
    if not isinstance(spec.observation_space, Discrete) or not spec.num_actions:
        raise Mistake(
            "a policy is a table of states and actions, and this world shows"
            f" {spec.observation_space} and takes {spec.action_space}"
        )
    model = spec.model if isinstance(spec.model, Model) else None
    shape = (int(spec.observation_space.n), spec.num_actions)
    legal = np.ones(shape, bool) if model is None else model.action_mask
    if name in spec.policies:
        return checked(spec.policies[name], legal, f"policy {name}")
    if name == "uniform":
        return equal_chances(legal)
    if name == "optimal":
        if model is None:
            raise Mistake(
                "the optimal policy is known where a world has a model, and this one has none;"
                " name another policy, such as uniform"
            )
        return one_hot(optimal(model, discount).policy, legal).astype(np.float64)
    if name.endswith(".npy"):
        try:
            return checked(np.load(Path(name).expanduser()), legal, f"the policy of {name}")
        except (OSError, ValueError) as error:
            raise Mistake(f"the policy {name} cannot be read as an array: {error}") from None
    known = ("uniform", "optimal", *spec.policies)
    raise Mistake(
        f"there is no policy {name!r}{nearest(name, known)} (there are {', '.join(known)}, and"
        " paths ending in .npy)"
    )
