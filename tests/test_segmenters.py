"""Laws of rlplay/nets/segmenters.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlplay.core import Mistake
from rlplay.nets import backbones, segmenters
from rlplay.nets.encoders import Encoder
from rlplay.nets.optimize import convert
from rlplay.nets.segmenters import FCN, Dilated, UNet

ENCODERS = {
    "lenet": {"width": 0.25},
    "vgg11": {"width": 0.1},
    "resnet18": {"width": 0.1},
    "nips2013": {"first_stride": 2},
    "impala": {"width": 0.25},
}
SHAPES = [(1, 33, 47), (4, 42, 42), (3, 70, 53)]


class Maps(Encoder):
    """Returns the maps that it is given."""

    def __init__(self, *channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.strides = tuple(2**i for i in range(len(channels)))


def encoder(name: Any, shape: tuple[int, int, int]) -> Encoder:
    return backbones.Config(name, **ENCODERS[name]).make(shape)


def ones(layer: nn.Module) -> nn.Module:
    """Let a layer add up its inputs."""
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, 0.0 if "bias" in name else 1.0)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("network", ["unet", "fcn16s", "dilated"])
def test_logits_have_the_size_of_the_picture_and_are_float32(network, name, shape, dtype):
    eye = encoder(name, shape)
    both = nn.ModuleList([eye, segmenters.make(network, eye, shape[0], 5, channels=6)]).eval()
    convert(both, dtype)
    picture = torch.rand(2, *shape).to(dtype)
    logits = both[1](eye(picture), picture)
    assert logits.shape == (2, 5, *shape[1:])
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


@pytest.mark.parametrize("network", ["unet", "fcn32s", "fcn16s", "fcn8s", "dilated"])
def test_every_weight_that_is_used_has_a_gradient(network):
    eye = encoder("impala", (3, 33, 30))
    decoder = segmenters.make(network, eye, 3, 4, channels=4)
    picture = torch.rand(2, 3, 33, 30)
    F.cross_entropy(decoder(eye(picture), picture), torch.randint(4, (2, 33, 30))).backward()
    still = [k for k, p in nn.ModuleList([eye, decoder]).named_parameters() if p.grad is None]
    assert still == []


def test_fcn_adds_up_the_scores_of_as_many_maps_as_its_name_says():
    maps = [torch.rand(1, c, s, s) for c, s in ((2, 8), (3, 4), (4, 2))]
    picture = torch.zeros(1, 3, 16, 16)

    def enlarged(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bilinear")

    coarse, middle, fine = (x.sum(1, keepdim=True) for x in reversed(maps))
    expected: dict[Any, Tensor] = {
        "fcn32s": enlarged(coarse, 8),
        "fcn16s": enlarged(enlarged(coarse, 2) + middle, 4),
        "fcn8s": enlarged(enlarged(enlarged(coarse, 2) + middle, 2) + fine, 2),
    }
    for name, by_hand in expected.items():
        decoder = ones(segmenters.make(name, Maps(2, 3, 4), 3, 1, 0))
        assert isinstance(decoder, FCN)
        torch.testing.assert_close(decoder(maps, picture), by_hand)


def test_fcn_refuses_an_encoder_with_too_few_maps():
    with pytest.raises(Mistake, match=r"3 maps, but this encoder has 2: set task\.network=fcn16s"):
        segmenters.make("fcn8s", encoder("lenet", (1, 32, 32)), 1, 2, 8)


@pytest.mark.parametrize("kind", [UNet, Dilated])
def test_only_a_u_net_sees_the_picture_itself(kind):
    torch.manual_seed(0)
    decoder = segmenters.make("unet" if kind is UNet else "dilated", Maps(2, 3), 3, 2, 4).eval()
    maps, picture = [torch.rand(1, 2, 8, 8), torch.rand(1, 3, 4, 4)], torch.rand(1, 3, 16, 16)
    changed = picture.clone()
    changed[0, :, 5, 7] += 1
    differs = (decoder(maps, picture) != decoder(maps, changed)).any(1)[0]
    assert isinstance(decoder, kind)
    assert differs.any() == (kind is UNet)
    differs[3:8, 5:10] = False  # as far as two convolutions of 3 x 3 reach
    assert not differs.any()


def test_dilated_context_sees_67_by_67_cells_and_no_further():
    decoder = segmenters.make("dilated", Maps(1), 1, 1, 1).train(False)
    assert isinstance(decoder, Dilated)
    x = torch.zeros(1, 1, 151, 151)
    x[0, 0, 75, 75] = 1
    for part in decoder.context:
        if isinstance(part, nn.Conv2d):
            ones(part)
            x = part(x)
    assert (x[0, 0, 42:109, 42:109] > 0).all()
    assert x.count_nonzero() == 67 * 67
