"""Laws of rlplay/nets/backbones.py: every encoder keeps one promise and is what it is called."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from rlplay.core import Mistake
from rlplay.nets import backbones
from rlplay.nets.optimize import convert

NAMES = ("lenet", "small", "alexnet", "vgg11", "resnet18", "resnet50", "nature", "impala")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("channels", "size"), [(1, 64), (3, 96)])
def test_maps_have_the_promised_channels_and_strides(name, channels, size):
    encoder = backbones.Config(name, width=0.25).make((channels, size, size)).eval()
    with torch.no_grad():
        maps = encoder(torch.rand(2, channels, size, size))
    assert len(maps) == len(encoder.channels) == len(encoder.strides)
    for found, planes, stride in zip(maps, encoder.channels, encoder.strides, strict=True):
        assert found.shape[:2] == (2, planes)
        unpadded = name == "nature"  # loses the rim of the picture
        assert size // stride - 4 * unpadded <= found.shape[2] <= size // stride
    assert list(encoder.strides) == sorted(encoder.strides)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnet_is_that_of_torchvision(name):
    models = pytest.importorskip("torchvision.models")
    theirs = getattr(models, name)().eval()
    ours = backbones.Config(name).make((3, 64, 64)).eval()
    body = [(k, v) for k, v in theirs.state_dict().items() if not k.startswith("fc.")]
    # within a block, they list the way around it last, as here
    assert [v.shape for _, v in body] == [v.shape for v in ours.state_dict().values()]
    ours.load_state_dict({k: v for k, (_, v) in zip(ours.state_dict(), body, strict=True)})
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i, found in enumerate(ours(x), 1):
            y = getattr(theirs, f"layer{i}")(y)
            torch.testing.assert_close(found, y)


def test_vgg_is_that_of_torchvision():
    models = pytest.importorskip("torchvision.models")
    theirs = models.vgg11_bn().features.eval()
    ours = backbones.Config("vgg11").make((3, 64, 64)).eval()
    count = sum(p.numel() for p in theirs.parameters())
    biases = sum(m.bias.numel() for m in theirs if isinstance(m, nn.Conv2d))  # before a norm: idle
    assert sum(p.numel() for p in ours.parameters()) == count - biases
    assert ours(torch.rand(1, 3, 64, 64))[-1].shape == theirs(torch.rand(1, 3, 64, 64)).shape


def test_small_pictures_keep_their_size_at_first():
    maps = backbones.Config("resnet18", width=0.1).make((3, 32, 32))(torch.rand(2, 3, 32, 32))
    assert [x.shape[2] for x in maps] == [32, 16, 8, 4]


def test_batch_norm_stays_in_float32():
    encoder = backbones.Config("small").make((1, 8, 8))
    convert(encoder, torch.bfloat16)
    leaves = [part for part in encoder.modules() if isinstance(part, nn.Conv2d | nn.BatchNorm2d)]
    kinds = {type(part): part.weight.dtype for part in leaves}
    assert kinds == {nn.Conv2d: torch.bfloat16, nn.BatchNorm2d: torch.float32}
    assert encoder(torch.rand(2, 1, 8, 8).bfloat16())[-1].dtype == torch.bfloat16


@pytest.mark.parametrize("channels", [1, 3])
def test_timm_backbone_keeps_the_promise(channels):
    pytest.importorskip("timm")
    config = backbones.Config("timm", backbone="mobilenetv3_small_050")
    encoder = config.make((channels, 64, 64)).eval()
    maps = encoder(torch.rand(1, channels, 64, 64))
    shapes = [(x.shape[1], 64 // x.shape[2]) for x in maps]
    assert shapes == list(zip(encoder.channels, encoder.strides, strict=True))


def test_unknown_backbone_is_told_with_the_nearest():
    pytest.importorskip("timm")
    with pytest.raises(Mistake, match=r"did you mean .*'resnet18'"):
        backbones.Config("timm", backbone="resnet-18").make((3, 64, 64))


def test_missing_timm_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(Mistake, match=r"pip install -e '.\[perception\]'"):
        backbones.Config("timm").make((3, 64, 64))
