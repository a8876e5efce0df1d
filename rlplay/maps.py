"""Values and greedy policy drawn on the map of a small world (being written: signatures first)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlplay.core import Agent, Array, Spec


def known(agent: Agent, spec: Spec) -> tuple[Array, Array]:
    """Return values [S] float64 and policy [S, A] float64 as the agent knows them."""
    raise NotImplementedError


def picture(values: Array, policy: Array, spec: Spec, title: str = "") -> Array:
    """Return [H, W, 3] uint8, even sides, the same shape for the same spec."""
    raise NotImplementedError


def save(picture: Array, path: Path) -> bytes:
    """Write a picture as PNG, whole or not at all; return its bytes, for record.tensorboard_clip."""
    raise NotImplementedError


def film(pictures: Sequence[Path], path: Path) -> None:
    """Write an mp4 of these pictures in order."""
    raise NotImplementedError
