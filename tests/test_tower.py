"""Laws of rlplay/nets/tower.py: what goes in and comes out, and that the copy for playing says the
same as the network that learns."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.nets.hardware import Replayed
from rlplay.nets.heads import Float32Linear
from rlplay.nets.tower import Block, Tower, for_playing, has_fused, pool, worth

CONNECT_FOUR = ((2, 6, 7), 7)
OTHELLO = ((2, 8, 8), 65)
GOMOKU = ((2, 9, 9), 81)
KINDS = [("none", False), ("none", True), ("batch", False), ("batch", True)]


def tower(board=CONNECT_FOUR, blocks=2, channels=8, seed=0, **settings) -> Tower:
    torch.manual_seed(seed)
    return Tower(*board, blocks=blocks, channels=channels, **settings)


def lively(board=CONNECT_FOUR, **settings) -> Tower:
    """A tower in which nothing is zero, as after some learning."""
    net = tower(board, **settings)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for _ in range(3):  # norms see what the boards are like
            net.train()(planes(board, 32))
    return net.eval()


def planes(board=CONNECT_FOUR, n=5, seed=0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, *board[0], generator=generator) < 0.3).float()


def copied(net: Tower, board=CONNECT_FOUR, dtype=torch.float32, n=5) -> Tower:
    return for_playing(net, list(net.parameters()), dtype, (n, *board[0]))


@torch.no_grad()
def answers(net: nn.Module, x: Tensor) -> np.ndarray:
    logits, points = net(x)
    assert logits.dtype == points.dtype == torch.float32
    return np.concatenate([logits.numpy(), points.numpy()[:, None]], 1)


@pytest.mark.parametrize(("norm", "global_pooling"), KINDS)
@pytest.mark.parametrize("board", [CONNECT_FOUR, OTHELLO, GOMOKU])
def test_a_logit_for_every_move_and_one_for_the_points(board, norm, global_pooling):
    net = lively(board, norm=norm, global_pooling=global_pooling)
    assert answers(net, planes(board)).shape == (5, board[1] + 1)
    pooling = [block.pooled is not None for block in net.blocks if isinstance(block, Block)]
    assert pooling == [False, global_pooling]


def test_tower_without_blocks_is_a_network_too():
    assert answers(lively(blocks=0), planes()).shape == (5, 8)


@pytest.mark.parametrize("board", [CONNECT_FOUR, OTHELLO])
@pytest.mark.parametrize(("norm", "global_pooling"), KINDS)
def test_new_tower_finds_all_moves_alike_and_every_board_a_draw(board, norm, global_pooling):
    net = tower(board, norm=norm, global_pooling=global_pooling)
    assert (answers(net, planes(board)) == 0).all()


@pytest.mark.parametrize("board", [CONNECT_FOUR, OTHELLO])
@pytest.mark.parametrize(("norm", "global_pooling"), KINDS)
def test_learning_reaches_every_weight(board, norm, global_pooling):
    """Though the last layers and the second convolutions begin at zero."""
    net = tower(board, norm=norm, global_pooling=global_pooling)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    x = planes(board, 16)
    for _ in range(4):
        logits, points = net.train()(x)
        adam.zero_grad()
        (F.cross_entropy(logits, x[:, 0].flatten(1).argmax(1) % board[1]) + points.sum()).backward()
        adam.step()
    # What a norm subtracts, it subtracts the bias before it as well.
    idle = {name for name in before if norm == "batch" and name.endswith("convolution.bias")}
    still = {name for name, p in net.named_parameters() if torch.equal(p, before[name])}
    assert still <= idle


@pytest.mark.parametrize(("norm", "global_pooling"), KINDS)
@pytest.mark.parametrize("board", [CONNECT_FOUR, OTHELLO])
def test_copy_for_playing_says_the_same(board, norm, global_pooling):
    net = lively(board, norm=norm, global_pooling=global_pooling)
    x = planes(board)
    assert answers(copied(net, board), x) == pytest.approx(answers(net, x), abs=1e-4)


def test_norm_that_is_left_out_instead_of_folded_is_seen():
    """The negative control of the law above."""
    net = lively(norm="batch")
    without = copy.deepcopy(net)
    for part in without.modules():
        if hasattr(part, "norm"):
            part.norm = None
    x = planes()
    assert np.abs(answers(copied(without), x) - answers(net, x)).max() > 0.1


@pytest.mark.skipif(not has_fused(), reason="torch was built without oneDNN")
def test_fused_convolutions_say_the_same_as_plain_ones():
    net = copied(lively(global_pooling=True))
    x = planes()
    fused = answers(net, x)
    packed = [part for part in net.modules() if getattr(part, "packed", None) is not None]
    assert len(packed) == 7
    for part in packed:
        part.packed = None
    assert answers(net, x) == pytest.approx(fused, abs=1e-5)


def test_copy_keeps_the_network_that_learns_as_it_is():
    net = lively(norm="batch")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    mode = net.train().training
    other = copied(net, dtype=torch.bfloat16)
    assert net.training is mode
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(p.requires_grad for p in other.parameters())


def test_bfloat16_is_near_and_the_last_layers_stay_float32():
    net = lively(channels=32, blocks=4)
    x = planes(n=64)
    other = copied(net, dtype=torch.bfloat16, n=64)
    last = [part for part in other.modules() if isinstance(part, Float32Linear)]
    assert [part.weight.dtype for part in last] == [torch.float32] * 2
    exact = answers(net, x)
    assert np.abs(answers(other, x) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_many_boards_are_answered_as_one_by_one(norm):
    net = copied(lively(OTHELLO, norm=norm, global_pooling=True), OTHELLO)
    x = planes(OTHELLO, 7)
    alone = np.concatenate([answers(net, x[i : i + 1]) for i in range(7)])
    assert answers(net, x) == pytest.approx(alone, abs=1e-5)


def test_worth_is_two_times_the_points_less_one():
    points = torch.tensor([0.01, 0.25, 0.5, 0.9])
    assert worth(torch.logit(points)).numpy() == pytest.approx((2 * points - 1).numpy(), abs=1e-6)


def test_pool_tells_mean_and_highest_of_every_channel():
    x = torch.randn(3, 4, 6, 7, generator=torch.Generator().manual_seed(0))
    array = x.numpy()
    expected = np.concatenate([array.mean((2, 3)), array.max((2, 3))], 1)
    assert pool(x).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("result", [1.0, -1.0, 0.0])
def test_value_learns_who_wins_with_the_right_sign(result):
    net = tower()
    adam = torch.optim.Adam(net.parameters(), 1e-2)
    target = torch.full((16,), (1 + result) / 2)
    for step in range(30):
        _, points = net(planes(n=16, seed=step))
        adam.zero_grad()
        F.binary_cross_entropy_with_logits(points, target).backward()
        adam.step()
    with torch.no_grad():
        value = worth(net(planes(n=16, seed=99))[1]).numpy()
    assert value == pytest.approx(result, abs=0.2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("num_boards", [1, 5, 8, 11])
@torch.inference_mode()
def test_a_replayed_network_says_what_the_network_says(num_boards: int) -> None:
    network = lively(global_pooling=True).cuda()
    replayed = Replayed(network, torch.zeros(8, 2, 6, 7, device="cuda"))
    for seed in range(2):
        planes = torch.rand(num_boards, 2, 6, 7, generator=torch.Generator().manual_seed(seed))
        for ours, theirs in zip(replayed(planes.cuda()), network(planes.cuda()), strict=True):
            torch.testing.assert_close(ours, theirs)
