"""N search trees side by side as arrays, and the kernels that grow them by one leaf each.

A simulation is three verbs, as in mctx (DeepMind, 2020): select walks from the root to an edge that
leads out of the tree, expand hangs the board behind it into the tree, backup adds what it is worth
to all nodes on the way. Kernels know neither rules nor networks: boards are bytes to them.

Every value in a tree is from the side of player 0, and each node knows who moves there; so nothing
has to be negated from ply to ply, and a player who moves twice, as after a pass, is no exception.

One thread grows all N trees: more were tried, and gain little where a network takes the time, and
lose much where another program wants the cores. Other threads go on meanwhile.

Shape letters: N games, M nodes, A actions, B bytes in a board.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from rlplay.core import Array

NODE = np.dtype(
    [
        ("parent", np.int32),  # -1 at the root
        ("action", np.int32),  # that led here from the parent
        ("visits", np.int32),  # times it was evaluated or passed through: one more than its edges'
        ("value", np.float32),  # sum over visits, for player 0
        ("evaluation", np.float32),  # what the evaluator said, or the score, for player 0
        ("player", np.int8),  # who moves
        ("over", np.bool_),  # the game has ended here
    ],
    align=True,
)
EDGE = np.dtype(
    [
        ("child", np.int32),  # node it leads to, or UNVISITED or ILLEGAL
        ("visits", np.int32),
        ("value", np.float32),  # sum over visits, for player 0
        ("prior", np.float32),  # softmax of the logits of legal moves, 0 where illegal
    ]
)
UNVISITED, ILLEGAL = -1, -2
NO_PARENT, NO_LEAF = -1, -2
PUCT, UCT, GUMBEL = 0, 1, 2
LEAST = np.float32(1e-30)  # prior of a legal move


class Tree(NamedTuple):
    """N trees. Node 0 is the root, and children come after their parents."""

    nodes: Array  # [N, M] NODE
    edges: Array  # [N, M, A] EDGE
    boards: Array  # [N, M, B] uint8
    size: Array  # [N] int32, nodes in use


class Rule(NamedTuple):
    """Which move is looked at next, as numbers for the kernels."""

    kind: int  # PUCT, UCT or GUMBEL
    exploration: float  # c_puct, or the constant of UCT
    base: float  # visits at which exploration has grown by log 2; inf for never
    first_play: float  # worth of a move never tried, for the player who moves
    first_play_share: float  # of the node's own value that is added to it
    value_visits: float  # c_visit of Gumbel search
    value_scale: float  # c_scale of Gumbel search


def empty(num_games: int, num_nodes: int, num_actions: int, num_bytes: int) -> Tree:
    """Return N trees of no nodes, with room for M each."""
    return Tree(
        np.empty((num_games, num_nodes), NODE),
        np.empty((num_games, num_nodes, num_actions), EDGE),
        np.empty((num_games, num_nodes, num_bytes), np.uint8),
        np.zeros(num_games, np.int32),
    )


@njit(cache=True, nogil=True)
def select(nodes, edges, boards, root, considered, rule, parent, action, board):
    """Find for each game the edge to follow out of its tree: a node [N] and an action [N] there,
    and copy that node's board [N, B]. A finished game, at the root or below, is found again.

    `root` [N, A] takes the place of the priors at the root: with noise for PUCT, or logits plus
    Gumbel noise, -inf where illegal; `considered` [N] are the visits of the root's moves to choose
    among by Gumbel search."""
    for i in range(len(nodes)):
        node, move = descend(nodes[i], edges[i], root[i], considered[i], rule)
        parent[i], action[i] = node, move
        for b in range(board.shape[1]):
            board[i, b] = boards[i, node, b]


@njit(cache=True)
def descend(nodes, edges, root, considered, rule):
    """Return the node and the action that lead out of one tree, or to a finished game."""
    node = 0
    if nodes[0].over:
        return 0, 0
    while True:
        if rule.kind == PUCT:
            action = puct(nodes[node], edges[node], root, node == 0, rule)
        elif rule.kind == UCT:
            action = uct(nodes[node], edges[node], rule)
        elif node == 0:
            action = gumbel_root(nodes[0], edges[0], root, considered, rule)
        else:
            action = gumbel_inside(nodes[node], edges[node], rule)
        child = edges[node, action].child
        if child < 0 or nodes[child].over:
            return node, action
        node = child


@njit(cache=True)
def puct(node, edges, root, is_root, rule):
    """Return the move of the highest Q + U (Silver et al. 2018, in the pseudo-code of the paper's
    supplement), the first of equals."""
    side = 1.0 if node.player == 0 else -1.0
    exploration = rule.exploration + np.log1p((node.visits + 1) / rule.base)
    exploration *= np.sqrt(node.visits)
    untried = rule.first_play + rule.first_play_share * side * node.value / node.visits
    best, highest = -1, -np.inf
    for a in range(len(edges)):
        edge = edges[a]
        if edge.child != ILLEGAL:
            prior = root[a] if is_root else edge.prior
            score = worth(edge, side, untried) + exploration * prior / (1 + edge.visits)
            if best < 0 or score > highest:
                best, highest = a, score
    return best


@njit(cache=True)
def uct(node, edges, rule):
    """Return a move never tried, or else that of the highest Q + c sqrt(ln N / n) (Kocsis and
    Szepesvari 2006), the first of equals."""
    side = 1.0 if node.player == 0 else -1.0
    logarithm = np.log(node.visits)
    best, highest = -1, -np.inf
    for a in range(len(edges)):
        edge = edges[a]
        if edge.child != ILLEGAL:
            if edge.visits == 0:
                return a
            bonus = rule.exploration * np.sqrt(logarithm / edge.visits)
            score = worth(edge, side, 0.0) + bonus
            if best < 0 or score > highest:
                best, highest = a, score
    return best


@njit(cache=True)
def gumbel_root(node, edges, root, considered, rule):
    """Return the best by noise, logit and value among the moves visited `considered` times
    (Danihelka et al. 2022, algorithm 2), which makes the visits those of sequential halving."""
    side = 1.0 if node.player == 0 else -1.0
    untried, scale = completion(node, edges, side, rule)
    best, highest = -1, -np.inf
    for a in range(len(edges)):
        edge = edges[a]
        if edge.child != ILLEGAL and edge.visits == considered:
            score = root[a] + scale * worth(edge, side, untried)
            if best < 0 or score > highest:
                best, highest = a, score
    return best


@njit(cache=True)
def gumbel_inside(node, edges, rule):
    """Return the move whose share of the visits falls shortest of the improved policy (Danihelka et
    al. 2022, equation 14), the first of equals."""
    side = 1.0 if node.player == 0 else -1.0
    untried, scale = completion(node, edges, side, rule)
    top, total = highest_worth(edges, side, untried), 0.0
    unseen = np.exp(scale * (untried - top))  # most moves are, and exp takes its time
    for a in range(len(edges)):
        edge = edges[a]
        if edge.child != ILLEGAL:
            seen = edge.visits > 0
            weight = np.exp(scale * (worth(edge, side, 0.0) - top)) if seen else unseen
            total += edge.prior * weight
    best, highest = -1, -np.inf
    for a in range(len(edges)):
        edge = edges[a]
        if edge.child != ILLEGAL:
            seen = edge.visits > 0
            weight = np.exp(scale * (worth(edge, side, 0.0) - top)) if seen else unseen
            score = edge.prior * weight / total - edge.visits / node.visits
            if best < 0 or score > highest:
                best, highest = a, score
    return best


@njit(cache=True)
def completion(node, edges, side, rule):
    """Return what a move never tried is taken to be worth to the player who moves (Danihelka et al.
    2022, equation 33), and by how much values are scaled beside logits (equation 8, where values
    lie in 0..1)."""
    most, prior, weighted = 0, 0.0, 0.0
    for a in range(len(edges)):
        edge = edges[a]
        if edge.visits > 0:
            most = max(most, edge.visits)
            prior += edge.prior
            weighted += edge.prior * worth(edge, side, 0.0)
    mixed = side * node.evaluation
    if prior > 0:
        mixed = (mixed + (node.visits - 1) * weighted / prior) / node.visits
    return mixed, 0.5 * (rule.value_visits + most) * rule.value_scale


@njit(cache=True)
def highest_worth(edges, side, untried):
    highest = -np.inf
    for a in range(len(edges)):
        if edges[a].child != ILLEGAL:
            highest = max(highest, worth(edges[a], side, untried))
    return highest


@njit(cache=True)
def worth(edge, side, untried):
    """Return what a move is worth to the player who makes it."""
    return side * edge.value / edge.visits if edge.visits > 0 else untried


@njit(cache=True, nogil=True)
def grow(
    nodes, edges, boards, size, parent, action, leaf, over, score, player, mask, logits, value
):
    """Hang a leaf into each tree and back its worth up: the board `leaf` [N, B], reached by
    `action` [N] from the node `parent` [N] (NO_PARENT: it is the root; NO_LEAF: nothing to do),
    with what the game and the evaluator say of it."""
    for i in range(len(nodes)):
        if parent[i] == NO_LEAF:
            continue
        if parent[i] >= 0:
            child = edges[i, parent[i], action[i]].child
            if child >= 0:  # a finished game was found once more
                backup(nodes[i], edges[i], child)
                continue
            if nodes[i, parent[i]].over:  # so the root is
                continue
        node = size[i]
        size[i] = node + 1
        for b in range(leaf.shape[1]):
            boards[i, node, b] = leaf[i, b]
        evaluation = score[i, 0] if over[i] else value[i] if player[i] == 0 else -value[i]
        if not expand(edges[i, node], mask[i], logits[i]):
            evaluation = np.float32(np.nan)  # it will be found at the root
        new = nodes[i, node]
        new.parent, new.action = parent[i], action[i]
        new.visits, new.value, new.evaluation = 0, 0, evaluation
        new.player, new.over = player[i], over[i]
        if parent[i] >= 0:
            edges[i, parent[i], action[i]].child = node
        backup(nodes[i], edges[i], node)


@njit(cache=True)
def expand(edges, mask, logits):
    """Set the edges [A] of a new node; return whether the logits are numbers."""
    highest, total, numbers = np.float32(-np.inf), np.float32(0), True
    for a in range(len(edges)):
        if mask[a]:
            highest = max(highest, logits[a])
            numbers &= not np.isnan(logits[a])
    for a in range(len(edges)):
        edge = edges[a]
        edge.child = UNVISITED if mask[a] else ILLEGAL
        edge.visits, edge.value = 0, 0
        edge.prior = max(np.exp(logits[a] - highest), LEAST) if mask[a] else np.float32(0)
        total += edge.prior
    for a in range(len(edges)):
        edges[a].prior /= total
    return numbers and np.isfinite(highest)


@njit(cache=True)
def backup(nodes, edges, node):
    """Add a node's evaluation to itself and to all nodes and edges above it."""
    evaluation = nodes[node].evaluation
    while True:
        visited = nodes[node]
        visited.visits += 1
        visited.value += evaluation
        if visited.parent < 0:
            return
        edge = edges[visited.parent, visited.action]
        edge.visits += 1
        edge.value += evaluation
        node = visited.parent


@njit(cache=True)
def keep(nodes, edges, boards, size, board):
    """Make the node that has the `board` [N, B] the root of each tree and drop all that is not
    below it; a tree without such a node is left with no nodes at all."""
    for i in range(len(nodes)):
        root = find(boards[i], size[i], board[i])
        if root < 0:
            size[i] = 0
            continue
        place = np.full(size[i], -1, np.int32)  # where each node goes: never further back
        kept = 0
        for m in range(root, size[i]):
            parent = nodes[i, m].parent
            if m > root and (parent < root or place[parent] < 0):
                continue
            place[m] = kept
            nodes[i, kept] = nodes[i, m]
            for a in range(edges.shape[2]):
                edges[i, kept, a] = edges[i, m, a]
            for b in range(boards.shape[2]):
                boards[i, kept, b] = boards[i, m, b]
            nodes[i, kept].parent = NO_PARENT if m == root else place[parent]
            if m > root:
                edges[i, place[parent], nodes[i, kept].action].child = kept
            kept += 1
        size[i] = kept


@njit(cache=True)
def find(boards, size, board):
    """Return the first node that has the board [B], or -1."""
    for m in range(size):
        same = True
        for b in range(len(board)):
            same &= boards[m, b] == board[b]
        if same:
            return m
    return -1


@njit(cache=True)
def improved(nodes, edges, root, rule):  # -> [N, A], [N], [N, A]
    """Return the improved policy at each root, softmax(logits + sigma(completed Q)) (Danihelka et
    al. 2022, equation 11), what that is worth to the player who moves, and the sums of `root`
    [N, A] and values by which moves are ranked."""
    policy, rank = np.zeros(root.shape, np.float32), np.empty(root.shape, np.float32)
    worths = np.empty(len(root), np.float32)
    for i in range(len(root)):
        side = 1.0 if nodes[i, 0].player == 0 else -1.0
        untried, scale = completion(nodes[i, 0], edges[i, 0], side, rule)
        top, total, weighted = highest_worth(edges[i, 0], side, untried), 0.0, 0.0
        for a in range(root.shape[1]):
            edge = edges[i, 0, a]
            value = worth(edge, side, untried)
            rank[i, a] = root[i, a] + scale * value
            if edge.child != ILLEGAL:
                policy[i, a] = edge.prior * np.exp(scale * (value - top))
                total += policy[i, a]
                weighted += policy[i, a] * value
        policy[i] /= total
        worths[i] = weighted / total
    return policy, worths, rank
