"""Laws of rlplay/filters.py: what a unit sees is what it depends on, and the patches that excite it
do excite it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rlplay.core import Mistake
from rlplay.insight import filters
from rlplay.nets import backbones

ENCODERS = {
    "nips2013": (42, {"first_stride": 2}),
    "nature": (84, {"width": 0.25}),
    "impala": (64, {"width": 0.25}),
    "small": (24, {"width": 0.25}),
    "lenet": (28, {}),
    "resnet18": (48, {"width": 0.1}),
}


def made(name: str, size: int, channels: int = 3) -> Any:
    torch.manual_seed(0)
    settings: Any = ENCODERS[name][1]
    return backbones.Config(name=name, **settings).make((channels, size, size)).eval()


@pytest.mark.parametrize("name", list(ENCODERS))
def test_a_unit_depends_on_pixels_of_its_field_and_on_the_edges_of_it(name):
    size = ENCODERS[name][0]
    encoder = made(name, size)
    random = torch.Generator().manual_seed(1)
    field = filters.receptive_field(encoder, (3, size, size), 0)
    pictures = torch.randn(24, 3, size, size, generator=random).requires_grad_()
    units = encoder(pictures)[0]
    row = column = units.shape[2] // 2
    (slope,) = torch.autograd.grad(units[:, :, row, column].sum(), pictures)
    rows, columns = (slope.abs().sum((0, 1)) > 0).nonzero(as_tuple=True)
    top, left = field.place(row, column)
    assert (rows.min().item(), columns.min().item()) == (top, left)
    assert (rows.max().item() + 1, columns.max().item() + 1) == (
        top + field.size[0],
        left + field.size[1],
    )


def test_fields_are_those_of_the_formula():
    """Araujo et al. 2019: a kernel k adds k - 1 times the strides before it."""
    nature = made("nature", 84)
    found = [filters.receptive_field(nature, (3, 84, 84), i) for i in range(3)]
    assert [field.size for field in found] == [(8, 8), (20, 20), (36, 36)]
    assert [field.stride for field in found] == [(4, 4), (8, 8), (8, 8)]
    impala = filters.receptive_field(made("impala", 64), (3, 64, 64), 0)
    assert impala == filters.Field((21, 21), (-10, -10), (2, 2))


def test_a_unit_that_sees_more_than_the_picture_sees_all_of_it():
    whole = filters.Field((16, 16), (0, 0), (0, 0))
    assert filters.receptive_field(made("impala", 16), (3, 16, 16), 2) == whole
    mlp = backbones.Config(name="mlp").make((1, 16, 16))
    assert filters.receptive_field(mlp, (1, 16, 16), 0) == whole


def test_a_patch_excites_its_unit_as_much_as_its_picture_did():
    encoder = made("nips2013", 42)
    pictures = np.random.default_rng(0).integers(256, size=(9, 3, 42, 42), dtype=np.uint8)
    found = filters.exciting(encoder, pictures, 1, num_units=4, num_patches=3)
    assert len(found.units) == 4
    with torch.no_grad():
        maps = encoder(torch.from_numpy(pictures) / 255)[1].numpy()
    for unit in found.units:
        peaks = np.sort(maps[:, unit.unit].max((1, 2)))[::-1]
        assert np.allclose(unit.activations, peaks[:3], atol=1e-5)
        assert len(set(unit.places[:, 0])) == 3  # of every picture one
        for patch, activation, (number, row, column) in zip(
            unit.patches, unit.activations, unit.places, strict=True
        ):
            assert maps[number, unit.unit, row, column] == pytest.approx(activation, abs=1e-5)
            only = np.zeros_like(pictures[:1])
            top, left = found.field.place(row, column)
            only[0, :, top : top + 10, left : left + 10] = patch
            with torch.no_grad():
                alone = encoder(torch.from_numpy(only) / 255)[1][0, unit.unit, row, column]
            assert alone.item() == pytest.approx(activation, abs=1e-4)


def test_silent_units_are_counted_and_not_shown():
    encoder = made("nips2013", 42)
    with torch.no_grad():
        encoder.layers[0].bias[:3] = -100
    pictures = np.random.default_rng(0).integers(256, size=(4, 3, 42, 42), dtype=np.uint8)
    found = filters.exciting(encoder, pictures, 0, num_units=100, num_patches=2)
    assert found.num_silent == 3
    assert [unit.unit for unit in found.units] == list(range(3, 16))


def test_patches_at_the_edge_are_black_beyond_it():
    picture = np.full((1, 10, 10), 7, np.uint8)
    patch = filters.cut(picture, filters.Field((4, 4), (-2, -2), (2, 2)), 0, 1)
    assert patch.tolist() == [[[0] * 4, [0] * 4, [7] * 4, [7] * 4]]


def test_first_filters_are_the_weights_of_the_first_layer():
    encoder = made("nips2013", 42)
    assert np.array_equal(
        filters.first_filters(encoder, 3), encoder.layers[0].weight.detach().numpy()
    )
    assert filters.first_filters(backbones.Config(name="mlp").make((1, 8, 8)), 1) is None


def test_an_unknown_layer_is_one_sentence():
    pictures = np.zeros((1, 3, 42, 42), np.uint8)
    with pytest.raises(Mistake, match=r"no layer 2: --layers takes numbers from 0 to 1"):
        filters.exciting(made("nips2013", 42), pictures, 2, 4, 4)
