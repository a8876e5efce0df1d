"""Laws of rlplay/nets/encoders.py: every encoder keeps the one contract."""

from __future__ import annotations

import math
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rlplay.core import Mistake
from rlplay.nets.encoders import Config, Convolution, patches, prepare, prepared_shape
from rlplay.nets.heads import QHead

NAMES = get_args(get_type_hints(Config)["name"])
PICTURE_NAMES = [name for name in NAMES if name != "mlp"]
SMALLEST = {"nature": 36, "nips2013": 20, "impala": 8}


def pictures(channels: int = 4, height: int = 84, width: int = 84) -> Box:
    return Box(0, 255, (channels, height, width), np.uint8)


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "space", [pictures(), pictures(1, 84, 84), pictures(3, 210, 160), pictures(12, 36, 50)]
)
def test_maps_have_the_promised_channels_and_strides_coarsest_last(name, space):
    encoder = Config(name=name).make(space)
    maps = encoder(torch.rand(2, *space.shape))
    assert len(maps) == len(encoder.channels) == len(encoder.strides)
    assert list(encoder.strides) == sorted(encoder.strides)
    for seen, channels, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert seen.shape[:2] == (2, channels)
        assert seen.ndim == 4
        if name == "mlp":
            assert seen.shape == (2, channels, 1, 1)
            continue
        for size, pixels in zip(seen.shape[2:], space.shape[1:], strict=True):
            # At the edge, convolutions without padding lose less than 36 pixels, nature's field.
            assert (pixels - 36) / stride < size <= math.ceil(pixels / stride)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_learns_and_nothing_but_the_last_map_is_needed(name):
    encoder = Config(name=name).make(pictures())
    torch.manual_seed(0)
    encoder(torch.rand(2, 4, 84, 84))[-1].square().sum().backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


def test_nature_is_the_network_of_the_paper():
    maps = Config(name="nature").make(pictures())(torch.rand(1, 4, 84, 84))
    assert [tuple(seen.shape[1:]) for seen in maps] == [(32, 20, 20), (64, 9, 9), (64, 7, 7)]


def test_nips2013_is_the_network_of_the_paper():
    maps = Config(name="nips2013").make(pictures())(torch.rand(1, 4, 84, 84))
    assert [tuple(seen.shape[1:]) for seen in maps] == [(16, 20, 20), (32, 9, 9)]


def test_first_stride_2_sees_pictures_of_half_the_size_as_4_sees_whole_ones():
    for name in ("nature", "nips2013"):
        whole = Config(name=name).make(pictures())(torch.rand(1, 4, 84, 84))
        half = Config(name=name, first_stride=2).make(pictures(4, 42, 42))
        assert [m.shape for m in half(torch.rand(1, 4, 42, 42))] == [m.shape for m in whole]
        assert half.strides == tuple(s // 2 for s in Config(name=name).make(pictures()).strides)


@pytest.mark.parametrize(("kernel", "stride", "height", "width"), [
    (8, 4, 84, 84), (4, 2, 20, 20), (4, 2, 42, 20), (4, 4, 8, 12), (8, 4, 84, 83), (3, 2, 20, 20),
    (3, 1, 9, 9),
])  # fmt: skip
def test_convolution_over_patches_equals_the_plain_one(kernel, stride, height, width):
    torch.manual_seed(0)
    ours = Convolution(3, 5, kernel, stride)
    plain = torch.nn.Conv2d(3, 5, kernel, stride)
    plain.load_state_dict(ours.state_dict())
    x = torch.rand(2, 3, height, width, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    out, expected = ours(x), plain(y)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    weight = torch.rand_like(out)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad, rtol=1e-4, atol=1e-4)


def test_patches_are_those_of_pixel_unshuffle_with_their_channels_in_another_order():
    x = torch.rand(2, 3, 8, 12)
    order = torch.arange(3 * 16).reshape(3, 16).T.flatten()  # torch: channel first, then pixel
    assert torch.equal(patches(x, 4), torch.nn.functional.pixel_unshuffle(x, 4)[:, order])
    assert patches(x, 4).is_contiguous(memory_format=torch.channels_last)


def test_impala_is_the_network_of_the_paper():
    maps = Config(name="impala").make(pictures(3, 72, 96))(torch.rand(1, 3, 72, 96))
    assert [tuple(seen.shape[1:]) for seen in maps] == [(16, 36, 48), (32, 18, 24), (32, 9, 12)]


def test_numbers_of_parameters_are_those_worked_out_by_hand():
    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    nature = convolution(4, 32, 8) + convolution(32, 64, 4) + convolution(64, 64, 3)
    assert num_parameters(Config(name="nature").make(pictures())) == nature == 77_984
    with_hidden = nature + (64 * 7 * 7 * 512 + 512)
    assert with_hidden == 1_684_128
    head = QHead(64 * 7 * 7, num_actions=18, hidden=512, dueling=False)
    assert nature + num_parameters(head) == with_hidden + (512 * 18 + 18) == 1_693_362

    nips = convolution(4, 16, 8) + convolution(16, 32, 4)
    assert num_parameters(Config(name="nips2013").make(pictures())) == nips

    stage = [
        convolution(a, b, 3) + 4 * convolution(b, b, 3) for a, b in [(4, 16), (16, 32), (32, 32)]
    ]
    assert num_parameters(Config(name="impala").make(pictures())) == sum(stage)

    assert num_parameters(Config(name="mlp", hidden=(5, 7)).make(Box(0, 1, (3,)))) == 20 + 42
    dueling = QHead(10, num_actions=3, hidden=8, dueling=True)
    assert num_parameters(dueling) == 2 * (10 * 8 + 8) + (8 * 3 + 3) + (8 + 1)
    assert num_parameters(QHead(10, num_actions=3, hidden=0, dueling=False)) == 33


@pytest.mark.parametrize("name", PICTURE_NAMES)
def test_width_scales_the_channels(name):
    plain, wide, thin = (Config(name=name, width=w).make(pictures()) for w in (1, 2, 0.1))
    assert wide.channels == tuple(2 * channels for channels in plain.channels)
    assert all(1 <= c <= 0.2 * p for c, p in zip(thin.channels, plain.channels, strict=True))
    assert thin(torch.rand(1, 4, 84, 84))[-1].shape[1] == thin.channels[-1]


def test_mlp_without_layers_hands_on_what_it_sees():
    encoder = Config(name="mlp", hidden=()).make(Box(-1, 1, (2, 3)))
    assert encoder.channels == (6,)
    x = torch.rand(4, 2, 3)
    assert torch.equal(encoder(x)[0], x.reshape(4, 6, 1, 1))


# --- what is seen ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_are_scaled_to_0_to_1(dtype):
    seen = torch.tensor([[0, 51, 255]], dtype=torch.uint8)
    scaled = prepare(seen, Box(0, 255, (3,), np.uint8), dtype)
    assert scaled.dtype == dtype
    assert scaled[0].tolist() == pytest.approx(
        [0, 0.2, 1], abs=1e-7 if dtype.itemsize > 2 else 1e-3
    )
    assert seen.tolist() == [[0, 51, 255]], "the memory's own bytes were changed"


def test_other_numbers_are_left_as_they_are():
    seen = torch.tensor([[0.0, -300.0, 1e6]], dtype=torch.float64)
    assert prepare(seen, Box(-np.inf, np.inf, (3,)), torch.float32).tolist() == seen.tolist()
    whole = torch.tensor([[0, -300, 7]])
    assert prepare(whole, Box(-999, 999, (3,), np.int64), torch.float32).tolist() == whole.tolist()


def test_discrete_observations_are_one_hot():
    space = Discrete(5)
    assert prepared_shape(space) == (5,)
    seen = prepare(torch.tensor([3, 0]), space, torch.float32)
    assert seen.tolist() == [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]
    assert Config(name="mlp", hidden=(7,)).make(space)(seen)[0].shape == (2, 7, 1, 1)


# --- what cannot be seen -----------------------------------------------------------------------


@pytest.mark.parametrize("name", PICTURE_NAMES)
@pytest.mark.parametrize("space", [Box(0, 1, (4,)), Box(0, 255, (84, 84), np.uint8), Discrete(3)])
def test_picture_encoder_on_what_is_no_picture_is_a_mistake(name, space):
    with pytest.raises(Mistake, match=rf"{name}.*mlp"):
        Config(name=name).make(space)


@pytest.mark.parametrize("name", PICTURE_NAMES)
def test_picture_too_small_is_a_mistake_and_the_smallest_is_not(name):
    size = SMALLEST[name]
    assert Config(name=name).make(pictures(1, size, size))(torch.rand(1, 1, size, size))
    for shape in [(size - 1, size), (size, size - 1)]:
        with pytest.raises(Mistake, match=rf"{size}x{size}.*{shape[0]}x{shape[1]}.*mlp"):
            Config(name=name).make(pictures(1, *shape))


def test_every_encoder_has_a_smallest_picture_in_this_test():
    assert sorted(SMALLEST) == sorted(PICTURE_NAMES)
