"""Pictures of runs: complete, the same each time, and showing what the runs are about."""

from __future__ import annotations

import re
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_curves import counted, make
from torch.utils.tensorboard import SummaryWriter

from rlplay import plot, settings
from rlplay.core import Mistake
from rlplay.curves import Curve
from rlplay.plot import Config, Panel, draw, draw_study, figure
from rlplay.record import tensorboard_image


def bandit(folder, label="bandit-ucb1-s0", bound=False, scale=1.0, **agent):
    """Write a run whose regret lies far below its bound."""
    lines = []
    for t in range(1, 60):
        metrics = {"rollout/reward": 1.5 - scale / t, "rollout/reward_ci": 0.1}
        metrics |= {"rollout/optimal_action": 1 - 1 / t, "rollout/optimal_action_ci": 0.01}
        metrics["rollout/cumulative_regret"] = 10 * scale * np.log(t) + 1
        metrics["rollout/cumulative_regret_ci"] = 2.0
        if bound:
            metrics["rollout/cumulative_regret_bound"] = 300 * np.log(t) + 200
        lines.append((2000 * t, metrics))
    return make(folder / label, lines, num_envs=2000, **({"name": "ucb1"} | agent))


def learner(folder, seed=0, scores=30, evaluations=3, **agent):
    lines = [(1000 * t, {"rollout/ep_score_mean": t * 1.0 + seed}) for t in range(1, scores + 1)]
    lines += [(5000 * t, {"eval/mean_reward": 2.0 * t}) for t in range(1, evaluations + 1)]
    name = f"pong-dqn-s{seed}-{'-'.join(map(str, agent.values()))}"
    return make(folder / name, lines, seed=seed, num_envs=4, **({"name": "dqn"} | agent))


def drawn(monkeypatch, *args, **kwargs):
    """Draw and return the figure."""
    figures = []
    monkeypatch.setattr(plot, "save", lambda figure, folder, name: figures.append(figure))
    draw(*args, **kwargs)
    return figures[0]


def titles(figure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def text(figure) -> str:
    """Return title, legend and caption."""
    (legend,) = figure.legends
    words = [t.get_text() for t in (legend.get_title(), *legend.get_texts())]
    return " | ".join([*words, figure.get_supxlabel()])


def test_png_and_svg_are_the_same_on_a_second_drawing(tmp_path):
    runs = [learner(tmp_path, seed) for seed in range(5)]
    first = draw(runs, tmp_path / "first")
    second = draw(runs, tmp_path / "second")
    assert [path.name for path in first] == ["plot.png", "plot.svg"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    other = draw(runs[1:], tmp_path / "other")
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(first, other, strict=True))
    assert Image.open(first[0]).size == (2 * 630, 525)
    assert b"<svg" in first[1].read_bytes()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["plot.png", "plot.svg"]


def test_bandits_are_drawn_by_reward_optimal_action_and_regret(tmp_path, monkeypatch):
    run = bandit(tmp_path)
    found = drawn(monkeypatch, [run], tmp_path)
    assert titles(found) == ["Average reward", "Optimal action", "Cumulative regret"]
    reward, optimal, _ = found.axes
    assert optimal.get_ylim() == (0, 1)
    assert optimal.yaxis.get_major_formatter()(0.4) == "40%"
    np.testing.assert_array_equal(reward.lines[0].get_xdata(), np.arange(1, 60))  # own pulls
    assert text(found) == "bandit | ucb1 | mean of 2,000 runs, 95% interval"


def test_a_far_bound_does_not_squash_the_curve(tmp_path, monkeypatch):
    found = drawn(monkeypatch, [bandit(tmp_path, bound=True)], tmp_path)
    axes = found.axes[2]
    curve, bound = axes.lines
    places = [axes.transAxes.inverted().transform(axes.transData.transform(line.get_xydata()))
              for line in (curve, bound)]  # fmt: skip
    assert np.ptp(places[0][:, 1]) > 0.25
    assert places[1][:, 1].max() <= 1
    assert bound.get_linestyle() == "--"
    assert "theoretical bound" in text(found)
    top = axes.transData.inverted().transform(axes.transAxes.transform((0, 1)))[1]
    assert np.ptp(curve.get_ydata()) / top < 0.25  # a plain axis would have


def test_others_are_drawn_by_score_and_by_evaluation_where_there_are_several(tmp_path, monkeypatch):
    found = drawn(monkeypatch, [learner(tmp_path)], tmp_path)
    assert titles(found) == ["Score, mean of recent episodes", "Score in evaluation"]
    once = learner(tmp_path, seed=1, evaluations=1)
    assert len(drawn(monkeypatch, [once], tmp_path).axes) == 1


def test_prediction_is_drawn_by_its_error(tmp_path, monkeypatch):
    run = make(tmp_path / "walk-td0-s0", [(t, {"train/rms_error": 1 / t}) for t in (1, 2, 3)])
    found = drawn(monkeypatch, [run], tmp_path)
    assert titles(found) == ["RMS error"]


def test_caption_says_what_the_band_is_and_labels_do_where_it_differs(tmp_path, monkeypatch):
    five = [learner(tmp_path, seed, n_step=1) for seed in range(5)]
    three = [learner(tmp_path, seed, n_step=3) for seed in range(3)]
    found = text(drawn(monkeypatch, five, tmp_path))
    assert found == "pong | dqn | IQM of 5 runs, 95% bootstrap interval"
    found = text(drawn(monkeypatch, five + three, tmp_path))
    assert "dqn n_step=1 (IQM of 5 runs, 95% bootstrap interval)" in found
    assert "dqn n_step=3 (mean of 3 runs, 95% bootstrap interval)" in found


def test_groups_that_are_given_keep_their_labels_and_title(tmp_path, monkeypatch):
    groups = {"one step": [learner(tmp_path, 0)], "another": [learner(tmp_path, 1)]}
    config = Config(title="Two of them", metrics=("eval/mean_reward",), low=-3, high=40)
    found = drawn(monkeypatch, groups, tmp_path, config)
    assert "Two of them | one step | another" in text(found)
    assert found.axes[0].get_ylim() == (-3, 40)


def test_a_metric_by_episode_is_drawn_by_episode(tmp_path, monkeypatch):
    values = np.random.default_rng(0).normal(size=(12, 30))
    run = make(tmp_path / "run", [], {"score": counted(values)}, num_envs=30)
    axes = drawn(monkeypatch, [run], tmp_path, Config(metrics=("score",), first=10)).axes[0]
    assert axes.get_xlabel() == "episode"
    assert axes.lines[0].get_xdata().tolist() == list(range(1, 11))


def test_a_study_has_fractions_below_it_and_an_error_bar_for_each_value(tmp_path, monkeypatch):
    points = {"td": [(2.0**-k, [bandit(tmp_path, f"{k}", scale=k, c=k)]) for k in range(6)]}
    figures = []
    monkeypatch.setattr(plot, "save", lambda figure, folder, name: figures.append(figure))
    draw_study(points, tmp_path, Config(log_x=True, metrics=("rollout/reward",), x="value"))
    axes = figures[0].axes[0]
    assert axes.get_xscale() == "log"
    figures[0].canvas.draw()
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert {"1/32", "1/4", "1/2", "1"} <= set(labels)
    assert len(axes.containers[0].lines[2][0].get_segments()) == 6


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (10_000, "10k"), (2_500_000, "2.5M"), (-12_000, "\N{MINUS SIGN}12k"),
     (0.0625, "1/16"), (0.3, "0.3"), (4, "4"), (3e9, "3G"), (1e-6, "1e\N{MINUS SIGN}06")],
)  # fmt: skip
def test_ticks_are_short(value, written):
    assert plot.short(value) == written


@pytest.mark.parametrize("count", [1, 3, 7, 8, 12])
def test_every_curve_has_a_colour_of_its_own_in_every_panel(count):
    ramp = np.arange(3.0)
    curves = {f"n = {i}": Curve(ramp, ramp + i, ramp + i, ramp + i) for i in range(count)}
    found = figure([Panel("a", "x", curves), Panel("b", "x", dict(reversed(curves.items())))])
    inks = [{tuple(np.atleast_1d(line.get_color())): line.get_ydata()[0] for line in axes.lines}
            for axes in found.axes]  # fmt: skip
    assert len(inks[0]) == count
    assert inks[0] == inks[1]


def test_mistakes_are_told_in_a_sentence(tmp_path):
    run, empty = learner(tmp_path), make(tmp_path / "empty", name="dqn")
    odd = make(tmp_path / "odd", [(1, {"train/what": 1.0})], name="odd")
    for runs, config, sentence in [
        ([], Config(), "nothing to plot"),
        ([run, empty], Config(), "empty has logged nothing yet"),
        ([odd], Config(), "no usual metric in common; name one with --metrics"),
        ([run, odd], Config(metrics=("eval/mean_reward",)), "odd has no metric 'eval/mean_reward'"),
        ([run], Config(metrics=("eval/mean_rewad",)), "did you mean 'eval/mean_reward'"),
        ([run], Config(x="value"), "set --x steps"),
    ]:
        with pytest.raises(Mistake, match=sentence):
            draw(runs, tmp_path, config)
    assert not (tmp_path / "plot.png").exists()


def test_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(Mistake, match=r"cannot write to .*; name another folder in --out"):
            plot.save(Figure(), folder, "x")


def test_settings_of_a_plot_are_read_from_yaml_like_any_others():
    found = settings.convert(Config, {"metrics": ["a/b"], "first": 10, "high": 1}, "f.yaml", "plot")
    assert found == Config(metrics=("a/b",), first=10, high=1.0)
    with pytest.raises(Mistake, match=r"plot.first must be a whole number"):
        settings.convert(Config, {"first": -1}, "f.yaml", "plot")


def test_tensorboard_shows_the_png_itself(tmp_path):
    png = draw([learner(tmp_path)], tmp_path)[0].read_bytes()
    with SummaryWriter(str(tmp_path / "events")) as writer:
        tensorboard_image(writer, "plot", png, 70)
    events = EventAccumulator(str(tmp_path / "events"), size_guidance={"images": 0})
    events.Reload()
    (image,) = events.Images("plot")
    assert (image.step, image.encoded_image_string) == (70, png)
    assert (image.width, image.height) == Image.open(BytesIO(png)).size


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "plot.png"
    plot.write(path, b"old")

    def full(self, content):
        open(self, "wb").close()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(path), "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        plot.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_matplotlib_is_loaded_by_drawing_only_and_pyplot_never():
    code = """
import sys
import rlplay.__main__, rlplay.plot, rlplay.maps
print("matplotlib" in sys.modules)
import numpy as np
from rlplay.curves import Curve
line = Curve(*np.zeros((4, 3)))
rlplay.plot.figure([rlplay.plot.Panel("y", "x", {"a": line})]).savefig("/dev/null", format="png")
print("matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.split(r"\s+", said.stdout.strip()) == ["False", "True", "False"]
