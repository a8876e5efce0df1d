"""Our labels of Atari games beside those of OCAtari (Delfosse et al. 2024), by game and kind: how
often both see the same object in the same place.

    python benchmarks/labels_ocatari.py [--steps N] [--out FILE]

OCAtari pins numpy below 2, so it needs an environment of its own:

    python -m venv ocatari && ocatari/bin/pip install ocatari==2.2.1 ale-py 'scipy<1.15'
    PYTHONPATH=. ocatari/bin/python benchmarks/labels_ocatari.py

Both read the same emulator at the same frame. OCAtari reads RAM alone: it lists what is there even
where the screen does not show it, and its boxes have fixed sizes; ours are of what is visible.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from ocatari.core import OCAtari

from rlplay.perception.objects import Box, labels

OURS_IS_THEIRS = {
    "pong": {"ball": "Ball", "player": "Player", "enemy": "Enemy"},
    "breakout": {"ball": "Ball", "player": "Player"},  # it merges bricks in rows
    "space_invaders": {
        "player": "Player",
        "invader": "Alien",
        "shield": "Shield",
        "shot": "Bullet",
        "bomb": "Bullet",
        "saucer": "Satellite",
    },
    "ms_pacman": {
        "player": "Player",
        "blinky": "Ghost",
        "pinky": "Ghost",
        "inky": "Ghost",
        "sue": "Ghost",
        "edible_ghost": "Ghost",
        "fruit": "Fruit",
    },
    "freeway": {"player": "Chicken", "rival": "Chicken", "car": "Car"},
    "boxing": {"player": "Player", "enemy": "Enemy"},
    "bowling": {"player": "Player", "ball": "Ball", "pin": "Pin"},
    "tennis": {"player": "Player", "enemy": "Enemy", "ball": "Ball", "shadow": "BallShadow"},
    "skiing": {"player": "Player", "flag": "Flag", "tree": "Tree", "mogul": "Mogul"},
}
NEAR = 3.0  # pixels between the centres of boxes of the same object


def overlap(one: Box, other: Box) -> float:
    """Return the area that two boxes share over the area that they cover."""
    width = min(one.right, other.right) - max(one.left, other.left)
    height = min(one.bottom, other.bottom) - max(one.top, other.top)
    shared = max(width, 0) * max(height, 0)
    areas = [(box.right - box.left) * (box.bottom - box.top) for box in (one, other)]
    return shared / (sum(areas) - shared)


def apart(one: Box, other: Box) -> float:
    """Return how far apart the centres of two boxes are, right or down, pixels."""
    across = (one.left + one.right - other.left - other.right) / 2
    down = (one.top + one.bottom - other.top - other.bottom) / 2
    return max(abs(across), abs(down))


def compare(game: str, steps: int) -> dict[str, dict[str, Any]]:
    """Return per kind of OCAtari how many objects each has listed, and how many of them agree."""
    name = "".join(part.capitalize() for part in game.split("_"))
    env: Any = OCAtari(f"ALE/{name}-v5", mode="ram", hud=False, obs_mode="ori", frameskip=5)
    env.reset(seed=0)
    random, known = np.random.default_rng(0), labels(game)
    found: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    counts: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2, int))
    for _ in range(steps):
        _, _, terminated, truncated, _ = env.step(int(random.integers(env.action_space.n)))
        if terminated or truncated:
            env.reset()
            continue
        ours = known.objects(env._ale.getRAM(), env._ale.getScreen())
        for kind in set(OURS_IS_THEIRS[game].values()):
            mine = [o.box for o in ours if OURS_IS_THEIRS[game].get(o.kind) == kind]
            theirs = [
                Box(x, y, x + w, y + h)
                for x, y, w, h in (o.xywh for o in env.objects if o.category == kind)
                if w > 0 and h > 0
            ]
            counts[kind] += len(mine), len(theirs)
            pairs = sorted(
                (apart(a, b), i, j) for i, a in enumerate(mine) for j, b in enumerate(theirs)
            )
            used: tuple[set[int], set[int]] = set(), set()
            for distance, i, j in pairs:
                if distance <= NEAR and i not in used[0] and j not in used[1]:
                    used[0].add(i)
                    used[1].add(j)
                    found[kind]["distance"].append(distance)
                    found[kind]["overlap"].append(overlap(mine[i], theirs[j]))
    env.close()
    report = {}
    for kind, (ours_total, theirs_total) in sorted(counts.items()):
        both = len(found[kind]["distance"])
        report[kind] = {
            "ours": int(ours_total),
            "ocatari": int(theirs_total),
            "both": both,
            "of_ours": round(both / ours_total, 4) if ours_total else None,
            "of_ocatari": round(both / theirs_total, 4) if theirs_total else None,
            "mean_distance": round(float(np.mean(found[kind]["distance"])), 3) if both else None,
            "mean_iou": round(float(np.mean(found[kind]["overlap"])), 3) if both else None,
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--games", nargs="*", default=list(OURS_IS_THEIRS))
    default = Path(__file__).parent / "results" / "labels_ocatari.json"
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    games = {}
    for game in options.games:
        games[game] = compare(game, options.steps)
        for kind, numbers in games[game].items():
            print(game, kind, numbers, flush=True)
    versions = {name: metadata.version(name) for name in ("ocatari", "ale-py", "numpy")}
    settings = {"steps": options.steps, "frame_skip": 5, "policy": "uniform", "near_pixels": NEAR}
    result = {"settings": settings, "versions": versions, "games": games}
    options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
