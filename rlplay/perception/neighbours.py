"""Which pictures look alike to an encoder: nearest neighbours among their features.

Two pictures are as alike as the cosine of their coarsest maps, flattened, each less the mean over
all pictures. Places count: averaged over the picture, features hardly know where a small thing is.
Without the mean, what every picture shows would decide.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from rlplay.nets.encoders import Encoder


def features(encoder: Encoder, pictures: Iterable[Tensor]) -> Tensor:
    """Return the flattened coarsest maps [n, F] float32 of batches of pictures [B, C, H, W], 0..1,
    as the encoder computes."""
    return torch.cat([encoder(batch)[-1].flatten(1).float() for batch in pictures])


def distances(queries: Tensor, known: Tensor) -> Tensor:
    """Return how far [Q, n] queries [Q, F] are from what is known [n, F]: 0 for the same direction
    from the mean, 1 for a right angle, 2 for the opposite."""
    mean = known.mean(0)
    return 1 - F.normalize(queries - mean, dim=1) @ F.normalize(known - mean, dim=1).T


def nearest(distance: Tensor, num: int) -> Tensor:
    """Return the numbers [Q, num], nearest first, of what is nearest by distances [Q, n]. Of two
    as near, the first."""
    return distance.sort(dim=1, stable=True).indices[:, :num]
