"""Laws of the search: signs, counts and golden trees against a second, plain implementation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from envs import connect_four, othello, tictactoe
from rlplay import checkpoint, search
from rlplay import tree as trees
from rlplay.core import Array, Mistake, NonFinite
from rlplay.search import Config, Search, sequential_halving, uniform

KINDS = ["puct", "gumbel", "uct"]
BOARD = np.dtype([("key", np.uint64), ("ply", np.int8), ("player", np.int8)])


def scramble(key: Array | int, salt: int) -> Array:
    """Return 64 bits that look random (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        x = np.uint64(key) + np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * salt + 1)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


class Maze:
    """A game made of hashes: who moves next, what is legal, when it ends and how. The same player
    may move twice and more; `swapped` exchanges the players and nothing else."""

    name = "maze"
    num_actions = 5
    num_players = 2
    dtype = BOARD

    def __init__(self, length: int = 6, swapped: bool = False) -> None:
        self.max_moves, self.swapped = length, swapped

    def start(self, n: int, seed: int = 0) -> Array:
        state = np.zeros(n, BOARD)
        state["key"] = scramble(np.arange(n, dtype=np.uint64), seed + 99)
        return self.seated(state)

    def seated(self, state: Array) -> Array:
        state["player"] = (scramble(state["key"], 1) % np.uint64(2)).astype(np.int8) ^ self.swapped
        return state

    def play(self, state: Array, action: Array) -> Array:
        assert self.action_mask(state)[np.arange(len(state)), action].all(), "an illegal move"
        following = state.copy()
        following["key"] = scramble(state["key"] ^ np.uint64(7) * action.astype(np.uint64), 2)
        following["ply"] += 1
        return np.where(self.over(state), state, self.seated(following))

    def over(self, state: Array) -> Array:
        early = scramble(state["key"], 3) % np.uint64(8) == 0
        return (state["ply"] >= self.max_moves) | early & (state["ply"] > 0)

    def player(self, state: Array) -> Array:
        return state["player"].astype(np.int64)

    def action_mask(self, state: Array) -> Array:
        bits = scramble(state["key"], 4) | np.uint64(4)  # at least the middle one
        mask = (bits[:, None] >> np.arange(5, dtype=np.uint64)) & np.uint64(1) > 0
        return mask | self.over(state)[:, None]

    def score(self, state: Array) -> Array:
        won = (scramble(state["key"], 5) % np.uint64(3)).astype(np.float32) - 1
        won = np.where(self.over(state), -won if self.swapped else won, 0).astype(np.float32)
        return np.stack([won, -won], 1)


def hashed(state: Array) -> tuple[Array, Array]:
    """An evaluator of hashes: values are multiples of 1/1024, so that sums of them are exact."""
    salts = [scramble(state["key"], 10 + a).astype(np.float64) / 2**63 for a in range(5)]
    value = (scramble(state["key"], 20) % np.uint64(2048)).astype(np.float32) / 1024 - 1
    return np.stack(salts, 1).astype(np.float32) * 2, value


def searching(config: Config, game: Any = None, evaluator: Any = hashed, seed: int = 0) -> Search:
    return Search(game or Maze(), evaluator, config, np.random.default_rng(seed))


class Node:
    """A node of the second implementation: plain numbers, from the side of whoever moves there."""

    def __init__(self, game: Any, evaluator: Any, state: Array) -> None:
        self.state, self.player = state, int(game.player(state)[0])
        self.over = bool(game.over(state)[0])
        logits, value = evaluator(state)
        self.legal = [a for a in range(game.num_actions) if game.action_mask(state)[0, a]]
        total = sum(math.exp(logits[0, a]) for a in self.legal)
        self.prior = {a: math.exp(logits[0, a]) / total for a in self.legal}
        self.value = float(game.score(state)[0, self.player] if self.over else value[0])
        self.children: dict[int, Node] = {}
        self.seen: list[float] = []  # what each visit was worth to who moves here

    def q(self, action: int) -> float:
        child = self.children[action]
        mean = sum(child.seen) / len(child.seen)
        return mean if child.player == self.player else -mean

    def visits(self, action: int) -> int:
        return len(self.children[action].seen) if action in self.children else 0

    def completed(self) -> dict[int, float]:
        """The values of moves, with those never tried at the mix of Danihelka et al. 2022."""
        tried = [*self.children]
        mixed, count = self.value, sum(map(self.visits, tried))
        if tried:
            weighted = sum(self.prior[a] * self.q(a) for a in tried)
            mixed += count * weighted / sum(self.prior[a] for a in tried)
        mixed /= 1 + count
        return {a: self.q(a) if a in self.children else mixed for a in self.legal}

    def sigma(self, value: float) -> float:
        return (50 + max(map(self.visits, self.legal))) * (1 + value) / 2

    def improved(self) -> dict[int, float]:
        exponent = {a: math.log(self.prior[a]) + self.sigma(q) for a, q in self.completed().items()}
        top = max(exponent.values())
        weight = {a: math.exp(x - top) for a, x in exponent.items()}
        return {a: w / sum(weight.values()) for a, w in weight.items()}


def select(node: Node, kind: str, considered: int | None) -> int:
    if kind == "gumbel" and considered is not None:
        q = node.completed()
        allowed = [a for a in node.legal if node.visits(a) == considered]
        return max(allowed, key=lambda a: math.log(node.prior[a]) + node.sigma(q[a]))
    if kind == "gumbel":
        policy = node.improved()
        return max(node.legal, key=lambda a: policy[a] - node.visits(a) / len(node.seen))
    if kind == "uct":
        untried = [a for a in node.legal if not node.visits(a)]
        log = math.log(len(node.seen))
        bonus = {a: 1.25 * math.sqrt(log / node.visits(a)) for a in node.legal if node.visits(a)}
        return untried[0] if untried else max(node.legal, key=lambda a: node.q(a) + bonus[a])
    n = len(node.seen)
    c = (math.log((n + 19652 + 1) / 19652) + 1.25) * math.sqrt(n)
    untried = sum(node.seen) / n - 0.2
    q = {a: node.q(a) if node.visits(a) else untried for a in node.legal}
    return max(node.legal, key=lambda a: q[a] + c * node.prior[a] / (1 + node.visits(a)))


def second(
    kind: str, game: Any, evaluator: Any, state: Array, num_simulations: int
) -> tuple[Node, list[tuple[int, ...]]]:
    """Search one board; return the root and the paths of all nodes in the order of their making."""
    root, made = Node(game, evaluator, state), [()]
    root.seen.append(root.value)
    plan = sequential_halving(min(16, len(root.legal)), num_simulations)
    for simulation in range(num_simulations):
        node, path, steps = root, [root], []
        while not node.over:
            considered = int(plan[simulation]) if node is root else None
            steps.append(action := select(node, kind, considered))
            if new := action not in node.children:
                after = game.play(node.state, np.array([action]))
                node.children[action] = Node(game, evaluator, after)
                made.append(tuple(steps))
            node = node.children[action]
            path.append(node)
            if new:
                break
        for seer in path:
            seer.seen.append(node.value if seer.player == node.player else -node.value)
    return root, made


def paths(tree: trees.Tree, game: int) -> list[tuple[int, ...]]:
    """Return the moves that lead to each node of one tree."""
    found: list[tuple[int, ...]] = [()]
    for node in tree.nodes[game, 1 : tree.size[game]]:
        found.append((*found[node["parent"]], int(node["action"])))
    return found


def check_tree(tree: trees.Tree, game: int) -> None:
    """Whatever was done to a tree: edges and nodes tell the same story."""
    nodes, edges = tree.nodes[game], tree.edges[game]
    for m in range(tree.size[game]):
        assert nodes[m]["visits"] == 1 + edges[m]["visits"].sum() or nodes[m]["over"]
        for a, edge in enumerate(edges[m]):
            if edge["child"] >= 0:
                child = nodes[edge["child"]]
                assert (child["parent"], child["action"]) == (m, a)
                assert (child["visits"], child["value"]) == (edge["visits"], edge["value"])
            else:
                assert edge["visits"] == edge["value"] == 0
    assert sum(nodes[: tree.size[game]]["parent"] < 0) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_tree_is_node_by_node_that_of_a_second_implementation(kind):
    game, state = Maze(), Maze().start(24)
    one = searching(Config(kind=kind))
    found, tree = one.run(state, 60), one.tree
    assert tree is not None
    for i in range(len(state)):
        root, made = second(kind, game, hashed, state[i : i + 1], 60)
        assert paths(tree, i) == made
        check_tree(tree, i)
        assert found.visits[i].tolist() == [root.visits(a) for a in range(5)]
        value = sum(root.seen) / len(root.seen)
        if kind == "gumbel":
            value = sum(root.improved()[a] * q for a, q in root.completed().items())
        assert found.value[i] == pytest.approx(value, abs=1e-4)
        for a in root.children:
            assert found.q_values[i, a] == pytest.approx(root.q(a), abs=1e-5)
        if kind == "gumbel":
            policy = root.improved()
            assert found.policy[i] == pytest.approx([policy.get(a, 0) for a in range(5)], abs=1e-4)
            most = max(map(root.visits, root.legal))
            finalists = [a for a in root.legal if root.visits(a) == most]
            q = root.completed()
            best = max(finalists, key=lambda a: math.log(root.prior[a]) + root.sigma(q[a]))
            assert found.action[i] == best
    # Negative control: the trees of another evaluator are others.
    other = searching(Config(kind=kind), evaluator=uniform(game))
    other.run(state, 60)
    assert other.tree is not None
    if kind != "uct":
        assert paths(other.tree, 0) != paths(tree, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_boards_side_by_side_are_searched_as_each_alone(kind):
    state = Maze().start(30)
    together = searching(Config(kind=kind)).run(state, 40)
    for i in range(len(state)):
        alone = searching(Config(kind=kind)).run(state[i : i + 1], 40)
        for left, right in zip(together[:5], alone[:5], strict=True):
            assert np.array_equal(left[i], right[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("explore", [False, True])
def test_visits_are_the_simulations_and_only_of_legal_moves(kind, explore):
    game, state = Maze(), Maze().start(40)
    found = searching(Config(kind=kind)).run(state, 50, explore)
    mask = game.action_mask(state)
    assert (found.visits.sum(1) == 50).all()
    assert (found.visits[~mask] == 0).all()
    assert (found.policy[~mask] == 0).all()
    assert (found.q_values[~mask] == -1).all()
    assert found.policy.sum(1) == pytest.approx(1, abs=1e-5)
    assert mask[np.arange(40), found.action].all()
    assert found.num_simulations == 50
    kinds = [np.int32, np.float32, np.float32, np.float32, np.int64]
    assert [leaf.dtype for leaf in found[:5]] == kinds


@pytest.mark.parametrize("kind", KINDS)
def test_players_swapped_change_nothing_but_their_names(kind):
    one = searching(Config(kind=kind), Maze()).run(Maze().start(40), 50)
    other = searching(Config(kind=kind), Maze(swapped=True)).run(Maze(swapped=True).start(40), 50)
    for left, right in zip(one[:5], other[:5], strict=True):
        assert np.array_equal(left, right)


@pytest.mark.parametrize("kind", KINDS)
def test_mirrored_board_is_searched_the_same_way_mirrored(kind):
    game = connect_four.Config().rules()

    def preferring(state: Array) -> tuple[Array, Array]:
        """Symmetric in values, and in logits but for a hair that settles all ties."""
        planes = game.observe(state)
        lean = np.array([[1, 2, 3, 4, 3, 2, 1]], np.float32) / 7
        height = planes.sum((1, 2))
        own, others = (planes[:, p].sum(1) @ np.float32([1, 2, 3, 4, 3, 2, 1]) for p in range(2))
        return lean + height / 9, np.tanh((own - others) / 20)

    state = game.start(1)
    for column in (2, 3, 3, 0, 5):
        state = game.play(state, np.array([column]))
    mirrored = game.start(1)
    for column in (4, 3, 3, 6, 1):
        mirrored = game.play(mirrored, np.array([column]))
    one = searching(Config(kind=kind), game, preferring).run(state, 60)
    other = searching(Config(kind=kind), game, preferring).run(mirrored, 60)
    assert np.array_equal(one.visits[:, ::-1], other.visits)
    assert one.value == pytest.approx(other.value, abs=1e-6)


def exact(game: Any, state: Array, known: dict[bytes, int]) -> int:
    """Return the score of a board for player 0, by trying everything."""
    if (key := state.tobytes()) not in known:
        if game.over(state)[0]:
            known[key] = int(game.score(state)[0, 0])
        else:
            moves = np.flatnonzero(game.action_mask(state)[0])
            after = [exact(game, game.play(state, np.array([a])), known) for a in moves]
            known[key] = max(after) if game.player(state)[0] == 0 else min(after)
    return known[key]


@pytest.mark.parametrize("kind", KINDS)
def test_value_comes_to_that_of_perfect_play_though_players_move_twice(kind):
    game, known = Maze(4), {}
    state = game.start(40)
    config = Config(kind=kind, c_scale=0.03)  # a higher one gives up moves for good
    found = searching(config, game, uniform(game)).run(state, 3000)
    scores = np.array([exact(game, state[i : i + 1], known) for i in range(40)])
    own = np.where(game.player(state) == 0, scores, -scores)
    assert np.abs(found.q_values[np.arange(40), found.action] - own).max() < 0.3
    after = game.play(state, found.action)
    reached = np.array([exact(game, after[i : i + 1], known) for i in range(40)])
    assert np.array_equal(reached, scores)
    assert len({*own.tolist()}) == 3, "wins, draws and losses should all be among them"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("moves", "answer"),
    [
        ((0, 3, 1, 4), 2),  # player 0 wins
        ((0, 3, 1, 4, 8), 5),  # player 1 wins
        ((0, 4, 8, 1), 7),  # player 0 blocks
        ((4, 0, 2), 6),  # player 1 blocks
    ],
)
def test_win_in_one_is_taken_and_a_threat_is_blocked(kind, moves, answer):
    game = tictactoe.Config().rules()
    state = game.start(1)
    for move in moves:
        state = game.play(state, np.array([move]))
    found = searching(Config(kind=kind), game, uniform(game)).run(state, 200)
    assert found.action.tolist() == [answer]


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_tictactoe_is_never_lost_against_any_line_of_play(kind, side):
    """Every answer the opponent has is tried, so all games against this player are played."""
    game = tictactoe.Config().rules()
    one = searching(Config(kind=kind), game, uniform(game))
    state, outcomes = game.start(1), []
    while len(state):
        moves = game.player(state) == side
        own, others = state[moves], state[~moves]
        parts = []
        if len(own):
            parts.append(game.play(own, one.run(own, 6000).action))
        if len(others):
            row, action = np.nonzero(game.action_mask(others))
            parts.append(game.play(others[row], action))
        state = np.concatenate(parts)
        over = game.over(state)
        outcomes += game.score(state)[over, side].tolist()
        state = np.unique(state[~over])
    assert min(outcomes) == 0
    assert max(outcomes) == 1
    assert len(outcomes) > 20


def test_pass_in_othello_keeps_the_signs():
    """Boards before, at and after a pass, searched to the end, have the values of perfect play."""
    game, random, known = othello.Config().rules(), np.random.default_rng(0), {}
    passing = game.num_actions - 1
    found = []
    state = game.start(300)
    while not game.over(state).all():
        late = game.observe(state)[:, :2].sum((1, 2, 3)) >= 60
        mask = game.action_mask(state)
        found += [
            state[i].copy() for i in np.flatnonzero(late & mask[:, passing] & ~game.over(state))
        ]
        keys = np.where(mask, random.random(mask.shape), -1)
        state = game.play(state, keys.argmax(1))
    boards = np.array(found[:20], game.dtype)
    assert len(boards) == 20
    scores = np.array([exact(game, boards[i : i + 1], known) for i in range(len(boards))])
    own = np.where(game.player(boards) == 0, scores, -scores)
    value = searching(Config(), game, uniform(game)).run(boards, 2000).value
    assert np.abs(value - own).max() < 0.3
    assert len({*own.tolist()}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_without_simulations_the_evaluator_speaks(kind):
    game, state = Maze(), Maze().start(30)
    found = searching(Config(kind=kind)).run(state, 0, explore=True)
    logits, value = hashed(state)
    weight = np.exp(logits) * game.action_mask(state)
    assert found.policy == pytest.approx(weight / weight.sum(1, keepdims=True), abs=1e-6)
    assert np.array_equal(found.value, value)
    assert not found.visits.any()
    assert np.array_equal(found.action, found.policy.argmax(1))


@pytest.mark.parametrize("kind", KINDS)
def test_finished_boards_do_no_harm_to_others(kind):
    game, state = Maze(), Maze().start(12)
    over = state.copy()
    while not game.over(over).all():
        over = game.play(over, game.action_mask(over).argmax(1))
    mixed = np.where(np.arange(12) % 2 == 0, state, over)
    found = searching(Config(kind=kind)).run(mixed, 30)
    alone = searching(Config(kind=kind)).run(state, 30)
    for left, right in zip(found[:5], alone[:5], strict=True):
        assert np.array_equal(left[::2], right[::2])
    own = game.score(over)[np.arange(12), game.player(over)]
    assert np.array_equal(found.value[1::2], own[1::2])
    assert not found.visits[1::2].any()
    assert found.policy.sum(1) == pytest.approx(1, abs=1e-5)


def test_noise_is_only_for_exploring_and_only_at_the_root():
    state = Maze().start(30)
    for kind in ("puct", "gumbel"):
        config = Config(kind=kind, dirichlet_fraction=0.5)
        plain = searching(config, seed=0).run(state, 30)
        again = searching(config, seed=1).run(state, 30)
        noisy = searching(config, seed=0).run(state, 30, explore=True)
        other = searching(config, seed=1).run(state, 30, explore=True)
        assert np.array_equal(plain.visits, again.visits)
        assert (noisy.visits != plain.visits).any()
        assert (noisy.visits != other.visits).any()
        one = searching(config)
        one.run(state, 30, explore=True)
        assert one.tree is not None
        prior = one.tree.edges["prior"][:, 0]
        assert np.array_equal(prior, searching(config).run(state, 0).policy)


def test_dirichlet_noise_has_the_distribution_of_the_paper():
    game, state = Maze(), np.repeat(Maze().start(50, seed=5)[:1], 4000)
    one = searching(Config(dirichlet_alpha=0.7, dirichlet_fraction=0.25))
    tree = one.plant(state, 0)
    prior = tree.edges["prior"][0, 0]
    noise = (one.root(tree, explore=True) - 0.75 * prior) / 0.25
    legal = game.action_mask(state[:1])[0]
    k = legal.sum()
    assert noise.sum(1) == pytest.approx(1, abs=1e-4)
    assert noise[:, ~legal] == pytest.approx(0)
    assert noise[:, legal].mean(0) == pytest.approx(1 / k, abs=0.02)
    variance = (1 / k) * (1 - 1 / k) / (0.7 * k + 1)
    assert noise[:, legal].var(0) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
    ("num_considered", "num_simulations", "visits"),
    [
        (16, 64, [15, 15, 7, 7, 3, 3, 3, 3] + [1] * 8),  # 4 rounds of 16: 1, 2, 4, 8 for each
        (8, 48, [14, 14, 6, 6, 2, 2, 2, 2]),  # 3 rounds of 16: 2, 4, 8
        (4, 200, [75, 75, 25, 25]),  # 2 rounds of 100
        (5, 30, [12, 12, 2, 2, 2]),  # 3 rounds of 10, the better 2 of 5 going on
        (2, 10, [5, 5]),
        (1, 7, [7]),
        (16, 5, [1, 1, 1, 1, 1]),
    ],
)
def test_sequential_halving_spends_its_budget_as_in_the_paper(
    num_considered, num_simulations, visits
):
    plan, counts = sequential_halving(num_considered, num_simulations), [0] * num_considered
    for before in plan:  # earlier moves are the better ones
        counts[counts.index(before)] += 1
    assert len(plan) == sum(counts) == num_simulations
    assert counts == visits + [0] * (num_considered - len(visits))


def test_gumbel_visits_follow_sequential_halving():
    """On a root of 8 moves the visits are those of the plan."""
    game = othello.Config().rules()
    state = game.start(1)
    while game.action_mask(state).sum() != 8 or game.over(state)[0]:
        mask = game.action_mask(state)[0]
        state = game.play(state, np.array([np.flatnonzero(mask)[-1]]))
    found = searching(Config(kind="gumbel"), game, uniform(game)).run(state, 48)
    assert sorted(found.visits[0].tolist())[-8:] == [2, 2, 2, 2, 6, 6, 14, 14]


class Bandit(Maze):
    """One move, and it is over; what a move is worth the evaluator says of the board after it, so
    that values are known with noise, as from a network."""

    def __init__(self, worth: Array) -> None:
        super().__init__(length=100)
        self.worth = worth  # [N, A] of each move of game i

    def start(self, n: int, seed: int = 0) -> Array:
        state = np.zeros(n, BOARD)
        state["key"] = np.arange(n, dtype=np.uint64) * np.uint64(8)
        return state

    def play(self, state: Array, action: Array) -> Array:
        following = state.copy()
        first = state["ply"] == 0
        following["key"] += np.where(first, action + 1, 0).astype(np.uint64)
        following["ply"] = 1
        return following

    def over(self, state: Array) -> Array:
        return np.zeros(len(state), bool)

    def action_mask(self, state: Array) -> Array:
        return np.ones((len(state), 5), bool)

    def score(self, state: Array) -> Array:
        return np.zeros((len(state), 2), np.float32)

    def evaluate(self, state: Array) -> tuple[Array, Array]:
        game, move = np.divmod(state["key"].astype(np.int64), 8)
        prior = np.random.default_rng(7).normal(size=self.worth.shape).astype(np.float32)[game]
        policy = np.exp(prior) / np.exp(prior).sum(1, keepdims=True)
        root = (policy * self.worth[game]).sum(1)
        value = np.where(move == 0, root, self.worth[game, move - 1])
        return prior, value.astype(np.float32)


@pytest.mark.parametrize("num_simulations", [2, 4, 16])
def test_gumbel_improves_on_the_policy_of_any_bandit(num_simulations):
    worth = np.random.default_rng(3).uniform(-1, 1, (500, 5)).astype(np.float32)
    game = Bandit(worth)
    state = game.start(500)
    before = searching(Config(kind="gumbel"), game, game.evaluate).run(state, 0).policy
    one = searching(Config(kind="gumbel"), game, game.evaluate)
    after = one.run(state, num_simulations).policy
    gain = (after * worth).sum(1) - (before * worth).sum(1)
    assert gain.mean() > 0.1
    if num_simulations >= 5:  # then all values are known
        assert gain.min() > -1e-5, "the improved policy is never worse"
    # And so are the moves it plays, drawn by Gumbel noise: better on average than the policy's own.
    played = [one.run(state, num_simulations, explore=True).action for _ in range(20)]
    values = np.mean([worth[np.arange(500), action] for action in played])
    assert values > (before * worth).sum(1).mean() + 0.1


def test_gumbel_noise_alone_draws_moves_in_proportion_to_the_policy():
    """With values all alike and one simulation, it is sampling without replacement from priors."""
    game = Bandit(np.zeros((4, 5), np.float32))
    one = searching(Config(kind="gumbel"), game, game.evaluate)
    state = np.repeat(game.start(1), 4000)
    counts = np.bincount(one.run(state, 1, explore=True).action, minlength=5)
    assert counts / 4000 == pytest.approx(one.run(state[:1], 0).policy[0], abs=0.03)


def test_reused_tree_is_what_lay_below_the_board():
    state, game = Maze().start(30), Maze()
    one = searching(Config(reuse=True))
    first = one.run(state, 50)
    old = one.tree
    assert old is not None
    following = game.play(state, first.action)
    expected, below = [], []
    for i in range(30):
        child = old.edges["child"][i, 0, first.action[i]]
        expected.append(old.edges["visits"][i, child].copy())
        below.append([p[1:] for p in paths(old, i) if p[:1] == (first.action[i],)])
    kept = one.run(following, 0)
    assert one.tree is not None
    for i in range(30):
        assert np.array_equal(kept.visits[i], expected[i])
        assert paths(one.tree, i) == below[i]
        check_tree(one.tree, i)
    more = one.run(following, 70)  # more than there was room for
    over = game.over(following)
    assert np.array_equal((more.visits - kept.visits).sum(1), np.where(over, 0, 70))
    for i in range(30):
        check_tree(one.tree, i)


def test_reuse_finds_the_board_after_both_players_moved_and_else_begins_anew():
    game = connect_four.Config().rules()
    one = searching(Config(reuse=True), game, uniform(game))
    state = game.start(3)
    one.run(state, 300)
    two_plies = game.play(game.play(state, np.array([3, 3, 0])), np.array([3, 2, 1]))
    assert (one.run(two_plies, 0).visits.sum(1) > 0).all()
    assert (one.run(state, 0).visits == 0).all(), "what lies above is gone"
    one.run(state, 50)
    one.forget()
    assert (one.run(state, 0).visits == 0).all()
    plain = searching(Config(), game, uniform(game))
    plain.run(state, 50)
    assert (plain.run(state, 0).visits == 0).all(), "only on request"


def test_reused_root_gets_noise_of_its_own_and_keeps_its_priors():
    state, one = Maze().start(30), searching(Config(reuse=True, dirichlet_fraction=0.9))
    first = one.run(state, 40, explore=True)
    following = Maze().play(state, first.action)
    one.run(following, 0, explore=True)
    assert one.tree is not None
    fresh = searching(Config()).run(following, 0).policy
    assert np.array_equal(one.tree.edges["prior"][:, 0], fresh)


def test_saved_search_goes_on_the_same(tmp_path):
    game = connect_four.Config().rules()
    config, moves = Config(num_simulations=30, reuse=True), []
    one = searching(config, game, uniform(game))
    state = game.start(4)
    for _ in range(3):
        state = game.play(state, one.choose(one.run(state, explore=True), 0, explore=True))
    checkpoint.save(tmp_path, "1", {"agent": one.state_dict()})
    other = searching(config, game, uniform(game), seed=9)
    other.load_state_dict(checkpoint.load(tmp_path / "1")["agent"])
    for each in (one, other):
        then = state
        for _ in range(3):
            found = each.run(then, explore=True)
            then = game.play(then, each.choose(found, 0, explore=True))
            moves.append((found.visits.tolist(), then.tobytes()))
    assert moves[:3] == moves[3:]


def test_moves_are_drawn_by_visits_and_only_early_and_to_explore():
    one = searching(Config(temperature=0.5, temperature_moves=10))
    once = one.run(Maze().start(3)[2:], 60)
    found = search.Searched(*(np.repeat(leaf, 20000, 0) for leaf in once[:5]), num_simulations=60)
    drawn = one.choose(found, 9, explore=True)
    squares = found.visits[0] ** 2.0
    assert np.bincount(drawn, minlength=5) / 20000 == pytest.approx(
        squares / squares.sum(), abs=0.02
    )
    assert np.array_equal(one.choose(found, 10, explore=True), found.action)
    assert np.array_equal(one.choose(found, 0, explore=False), found.action)
    late = one.choose(found, np.arange(20000) % 20, explore=True)
    assert np.array_equal(
        late != found.action, (late != found.action) & (np.arange(20000) % 20 < 10)
    )
    cold = searching(Config(temperature=0)).choose(found, 0, explore=True)
    assert np.array_equal(cold, found.action)


def test_first_play_says_what_a_move_never_tried_is_worth():
    """Moves are tried in the order of their worth at first sight: broadly where that is high."""
    state, tried = Maze(20).start(50), {}
    for first_play in ("parent", "draw", "loss"):
        config = Config(first_play=first_play, c_puct=0.3)
        found = searching(config, Maze(20), lambda s: (hashed(s)[0], hashed(s)[1] * 0 + 0.5))
        tried[first_play] = (found.run(state, 20).visits > 0).sum()
    assert tried["loss"] < tried["parent"]
    assert tried["loss"] < tried["draw"]


def test_what_is_no_number_is_said_and_nothing_is_lost():
    def broken(state: Array) -> tuple[Array, Array]:
        logits, value = hashed(state)
        return np.where(state["ply"][:, None] == 2, bad, logits), value

    for number in (np.nan, np.inf):
        bad, one = np.float32(number), searching(Config(), evaluator=broken)
        with pytest.raises(NonFinite, match="not numbers") as error:
            one.run(Maze().start(8), 40)
        assert (error.value.batch["boards"] == Maze().start(8)).all()
    one = searching(Config(), evaluator=lambda s: (hashed(s)[0], hashed(s)[1] * np.float32(np.nan)))
    with pytest.raises(NonFinite, match="not numbers"):
        one.run(Maze().start(8), 40)
    one.evaluator = hashed
    found = one.run(Maze().start(8), 40)
    assert np.array_equal(found.visits, searching(Config()).run(Maze().start(8), 40).visits)


def test_sure_priors_and_hopeless_logits_are_no_trouble():
    def sure(state: Array) -> tuple[Array, Array]:
        logits = np.full((len(state), 5), -np.inf, np.float32)
        logits[:, 2] = 300
        return logits, hashed(state)[1]

    for kind in KINDS:
        found = searching(Config(kind=kind, c_scale=20), evaluator=sure).run(Maze().start(8), 80)
        assert all(np.isfinite(leaf).all() for leaf in found[:5])
        assert (found.visits.sum(1) == 80).all()


def test_mistakes_are_said_in_one_sentence():
    game = connect_four.Config().rules()
    with pytest.raises(Mistake, match="reuse=False"):
        searching(Config(kind="gumbel", reuse=True))
    with pytest.raises(Mistake, match="set num_simulations lower"):
        searching(Config(), game, uniform(game)).run(game.start(1000), 1_000_000)
    with pytest.raises(ValueError, match="boards of connect_four"):
        searching(Config(), game, uniform(game)).run(Maze().start(2), 4)


def test_rollouts_estimate_the_value_of_random_play():
    game = connect_four.Config().rules()
    evaluate = search.rollouts(game, np.random.default_rng(0), count=50)
    state = np.repeat(game.start(1), 400)
    logits, value = evaluate(state)
    assert not logits.any()
    assert value.dtype == np.float32
    assert value.mean() == pytest.approx(
        0.11, abs=0.02
    )  # the first player wins 55.6% and loses 44.2
    _, other = evaluate(game.play(state, np.full(400, 3)))
    assert other.mean() < -0.15, "of the player who moves now"
