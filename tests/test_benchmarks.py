"""Laws of what benchmarks/ writes down: benchmarks/policy_gradients.py, on trainings too short to
learn anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
SCRIPT = HOME / "benchmarks" / "policy_gradients.py"
SHORT = "--num-steps=512 --log-every=256 --evaluation.num-episodes=3 --recording.max-steps=0"


def benchmark(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SCRIPT, "--runs", folder / "runs", "--out", folder / "found.json"]
    return subprocess.run([*command, *words], cwd=HOME, capture_output=True, text=True, check=False)


def test_row_says_what_each_seed_came_to_and_leaves_other_rows_alone(tmp_path):
    other = {"mean": 7}
    (tmp_path / "found.json").write_text(json.dumps({"rows": {"cartpole/a2c": other}}))
    done = benchmark(tmp_path, "--presets", "cartpole/ppo", "--seeds=2", *SHORT.split())
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert rows["cartpole/a2c"] == other
    row = rows["cartpole/ppo"]
    runs, (low, high) = row["runs"], row["interval"]
    assert row["command"] == f"rlplay train cartpole/ppo --seed SEED {SHORT}"
    assert (row["num_steps"], row["episodes"], row["goal"]) == (512, 3, 475)
    assert [run["seed"] for run in runs] == [0, 1]
    scores = [run["score"] for run in runs]
    assert scores[0] != scores[1]
    assert row["mean"] == pytest.approx(sum(scores) / 2)
    assert low == pytest.approx(min(scores))  # of two seeds, a quarter of resamples is one alone
    assert high == pytest.approx(max(scores))
    assert row["seeds_at_goal"] == sum(score >= 475 for score in scores)
    assert all(run["seconds"] > 0.5 and run["cpu_seconds"] > 0.5 for run in runs)
    assert (tmp_path / row["picture"]).stat().st_size > 10_000
    logs = [*(tmp_path / "runs").glob("cartpole-ppo/*-s[01]/*/metrics.jsonl")]
    said = [json.loads(log.read_text().splitlines()[-1])["eval/mean_reward"] for log in logs]
    assert sorted(said) == sorted(scores)


def test_preset_that_fails_leaves_no_row_and_says_where_to_look(tmp_path):
    done = benchmark(tmp_path, "--presets", "cartpole/ppo", "--seeds=1", "--agent.batch-size=7")
    assert done.returncode == 1
    assert not (tmp_path / "found.json").exists()
    place = Path(done.stderr.rpartition("see ")[2].strip())
    assert "batch_size" in place.read_text()
