"""Rules, search and self-play of connect four beside pgx (Koyamada et al. 2023) with mctx (DeepMind
2020), and beside the tree search of OpenSpiel (Lanctot et al. 2019).

    python benchmarks/search.py [PART] --peer-python PYTHON [--seconds N] [--rounds R] [--out FILE]

Every measurement is a process of its own. A round measures each side once, the next one in reverse;
ratios are taken within a round. pgx and mctx may live in an environment of their own, whose Python
is named with --peer-python: `pip install pgx==2.6.0 mctx==0.0.71 jax==0.10.2`.

All sides play against themselves and begin a new game where one has ended, with all of that on the
clock; nothing is learned. Random moves are made in calls, one after another, or in one compiled
loop, which for rlplay is the rollout of its search. With networks, each move takes 32 simulations
of Gumbel search. The one layer is 84 x 8 weights, for 7 logits and the value; the tower is rlplay's
with 4 blocks of 32 channels and no norms, which is written out for jax below.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

RESULTS = Path(__file__).parent / "results"
NUM_SIMULATIONS, NUM_ROLLOUTS = 32, 1000  # for each move: with a network, and with random play
BLOCKS, CHANNELS = 4, 32
COLUMNS = {
    "rate": ",.0f",
    "games": ",.1f",
    "net_share": ".3f",
    "gpu_percent": ".0f",
    "cores": ".2f",
    "first_s": ".2f",
}
PEERS = ("pgx", "mctx", "jax", "jaxlib", "numpy")
THEIRS = ("pgx", "mctx")  # how measurements begin that the peers' Python makes

Counts = Iterator[dict[str, float]]  # what was done in each turn, without end


class Goal(NamedTuple):
    side: str
    to: str | None  # the side whose rate is 1
    aim: float | None  # at least, or for seconds at most
    column: str = "rate"


class Part(NamedTuple):
    about: str
    sides: dict[str, dict[str, Any]]  # by name: one of the functions below, and its options
    goals: list[Goal]
    rounds: int = 3
    turns: bool = True  # every second round is in reverse


def parts() -> dict[str, Part]:
    moves, layer, tower, mcts, start = ({} for _ in range(5))
    faster: dict[str, list[Goal]] = {"moves": [], "layer": [], "tower": []}
    for n in (256, 128):
        us, them, games = f"rlplay, {n} games", f"pgx + mctx, {n} games", {"num_games": n}
        for how, mine, turns in (("calls", "moves", 1), ("fused", "rollouts", 200)):
            moves[f"{us}, {how}"] = {"measure": f"rlplay_{mine}", **games}
            moves[f"{them}, {how}"] = {"measure": "pgx_moves", "turns": turns, **games}
            faster["moves"].append(Goal(f"{us}, {how}", f"{them}, {how}", 10))
        for t in (1, 2):
            layer[f"{us}, threads: {t}"] = {"measure": "rlplay_layer", "threads": t, **games}
        for dtype in ("auto", "float32"):
            tower[f"{us}, {dtype}"] = {"measure": "rlplay_tower", "precision": dtype, **games}
        layer[them] = {"measure": "mctx_search", "network": "jax_layer", **games}
        tower[them] = {"measure": "mctx_search", "network": "jax_tower", **games}
        for name, sides, aim in (("layer", layer, 3), ("tower", tower, 2.5)):
            faster[name] += [Goal(ours, them, aim) for ours in list(sides)[-3:-1]]
    shares = [Goal(side, None, 0.85, "net_share") for side in tower if "rlplay" in side]
    for side in list(tower)[:3]:
        tower[alone := f"{side}, net alone"] = tower[side] | {"alone": True}
        shares.append(Goal(side, alone, None))
    for n in (256, 1):
        mcts[f"rlplay's mcts, num_games {n}"] = {"measure": "rlplay_mcts", "num_games": n}
    beside = [Goal(side, "OpenSpiel's MCTS, num_games 1", None) for side in mcts]
    mcts["OpenSpiel's MCTS, num_games 1"] = {"measure": "openspiel_mcts"}
    for what in ("layer", "tower"):
        mine = {"measure": f"rlplay_{what}", "num_games": 128, "seconds": 0}
        for cache in ("empty", "filled"):
            start[f"rlplay, {what}, {cache} cache"] = mine | {"cache": cache}
    limits = [Goal(side, None, 30 if "empty" in side else 3, "first_s") for side in start]
    start["pgx + mctx, layer"] = layer["pgx + mctx, 128 games"] | {"seconds": 0}
    large = {"measure": "rlplay_tower", "device": "cuda", "tower": (5, 128), "num_games": 1024}
    cuda = {"rlplay, 5 x 128, CUDA": large | {"seconds": 20}}
    return {
        "moves": Part("random moves", moves, faster["moves"]),
        "layer": Part("simulations, network of one layer", layer, faster["layer"]),
        "tower": Part("simulations, tower of 4 x 32", tower, faster["tower"] + shares),
        "mcts": Part("simulations, each a random game", mcts, beside),
        "start": Part("from the start of Python to the first move", start, limits, 1, False),
        "cuda": Part("simulations, tower of 5 x 128 on CUDA", cuda, []),
    }


def rlplay_moves(options: Any) -> Counts:
    """The functions of the game one after another, and a kernel that picks a legal move."""
    from numba import njit

    from envs.connect_four import ConnectFour

    @njit
    def pick(mask: Any, share: Any, action: Any) -> None:
        for i in range(len(mask)):
            action[i], left = 0, int(share[i] * mask[i].sum())
            while left or not mask[i, action[i]]:
                left -= mask[i, action[i]]
                action[i] += 1

    game, random = ConnectFour(), np.random.default_rng(options.seed)
    first, state = game.start(1), game.start(options.num_games)
    action = np.empty(options.num_games, np.int64)
    while True:
        ended = np.zeros(len(state))
        for _ in range(100):
            pick(game.action_mask(state), random.random(len(state)), action)
            state = game.play(state, action)
            over = game.over(state)
            state[over] = first
            ended += over
        yield {"rate": 100 * len(state), "games": float(ended.sum())}


def rlplay_rollouts(options: Any) -> Counts:
    """The kernel that plays to the end. It does not tell how many moves that takes: they are taken
    to be as many as in the mean of some other random games."""
    from envs.connect_four import ConnectFour

    others = list(islice(rlplay_moves(options), 50))
    length = sum(one["rate"] for one in others) / sum(one["games"] for one in others)
    game, random = ConnectFour(), np.random.default_rng(options.seed)
    state = game.start(options.num_games)
    while True:
        games = len(game.rollout(state, random))
        yield {"rate": games * length, "games": games}


def rlplay_layer(options: Any) -> Counts:
    """Each thread searches its share of the games."""
    from envs.connect_four import ConnectFour
    from rlplay.search import Config, Search

    game, (to_logits, to_value) = ConnectFour(), one_layer(options.seed)
    first, num_threads = game.start(1), options.threads

    def evaluate(state: Any) -> tuple[Any, Any]:
        planes = game.observe(state).reshape(len(state), -1)
        return planes @ to_logits, np.tanh(planes @ to_value)

    def move(search: Search, state: Any) -> Any:
        state = game.play(state, search.run(state, explore=True).action)
        state[game.over(state)] = first
        return state

    config, seeds = Config("gumbel", NUM_SIMULATIONS), range(num_threads)
    searches = [Search(game, evaluate, config, np.random.default_rng(seed)) for seed in seeds]
    states = [game.start(options.num_games // num_threads)] * num_threads
    with ThreadPoolExecutor(num_threads) as threads:
        while True:
            states = list((threads.map if num_threads > 1 else map)(move, searches, states))
            yield {"rate": options.num_games * NUM_SIMULATIONS}


def one_layer(seed: int) -> list[np.ndarray]:
    """Return weights [84, 7] for the logits and [84] for the value."""
    random = np.random.default_rng(seed)
    return [random.normal(0, 84**-0.5, shape).astype(np.float32) for shape in ((84, 7), 84)]


def rlplay_tower(options: Any) -> Counts:
    """The alphazero agent's self-play, or its network `alone`, asked as often as it can answer."""
    from rlplay.__main__ import quiet_threads

    quiet_threads()
    import torch

    from agents.alphazero import Config
    from envs import connect_four
    from rlplay import search
    from rlplay.play import play

    env = connect_four.Config(num_envs=options.num_games).make()
    how = {"search": search.Config("gumbel", NUM_SIMULATIONS), "precision": options.precision}
    config = Config("alphazero", *options.tower, device=options.device, **how)
    agent = config.make(env.spec, options.seed, learns=False)
    evaluators, moments = agent.evaluators[: agent.num_parts], play(env, agent, env.reset(0))

    @torch.inference_mode()
    def answer(i: int, rows: np.ndarray) -> Any:
        planes = torch.from_numpy(env.game.observe(env.boards[rows]))
        for _ in range(20):
            evaluators[i].ask(planes)

    while options.alone:
        agent.spread(answer, options.num_games, 1)
        yield {"rate": 20 * options.num_games}
    while True:
        before = sum(one.seconds for one in evaluators)
        moment = next(moments)
        inside = sum(one.seconds for one in evaluators) - before
        yield {
            "rate": (~moment.step.done).sum() * NUM_SIMULATIONS,
            "games": moment.following.done.sum(),
            "net_share": inside / len(evaluators),
        }


def rlplay_mcts(options: Any) -> Counts:
    from agents.mcts import Config
    from envs import connect_four

    env = connect_four.Config(num_envs=options.num_games).make()
    agent = Config(num_simulations=NUM_ROLLOUTS).make(env.spec, options.seed)
    step = env.reset(options.seed)
    while True:
        live = ~step.done
        step = env.step(agent.act(step).action)
        yield {"rate": live.sum() * NUM_ROLLOUTS}


def openspiel_mcts(options: Any) -> Counts:
    """OpenSpiel's C++ bot in one game, called from Python once for each move."""
    import pyspiel

    game = pyspiel.load_game("connect_four")
    evaluator = pyspiel.RandomRolloutEvaluator(1, options.seed)
    bot = pyspiel.MCTSBot(game, evaluator, 1.4, NUM_ROLLOUTS, 1000, False, options.seed, False)
    while True:
        state = game.new_initial_state()
        while not state.is_terminal():
            root = bot.mcts_search(state)
            state.apply_action(root.best_child().action)
            yield {"rate": root.explore_count}


def pgx_moves(options: Any) -> Counts:
    """So many moves of all games in one compiled loop."""
    import jax

    step, first, renewed = pgx_games(options)

    def move(_: int, carried: Any) -> Any:
        state, key = carried
        key, drawing = jax.random.split(key)
        logits = jax.numpy.where(state.legal_action_mask, 0.0, -jax.numpy.inf)
        return renewed(step(state, jax.random.categorical(drawing, logits)), first), key

    moves = jax.jit(lambda carried: jax.lax.fori_loop(0, options.turns, move, carried))
    carried = first, jax.random.key(options.seed)
    while True:
        carried = jax.block_until_ready(moves(carried))
        yield {"rate": options.turns * options.num_games}


def pgx_games(options: Any) -> tuple[Callable, Any, Callable]:
    """Return the rules, games [N] as they begin, and what puts those in the place of ended ones."""
    import jax
    import pgx

    env = pgx.make("connect_four")
    first = jax.vmap(env.init)(jax.random.split(jax.random.key(options.seed), options.num_games))

    @jax.vmap
    def renewed(state: Any, new: Any) -> Any:
        return jax.tree.map(lambda a, b: jax.numpy.where(state.terminated, a, b), new, state)

    return jax.vmap(env.step), first, renewed


def mctx_search(options: Any) -> Counts:
    """One compiled function searches all games and makes a move in each; or the network alone."""
    import jax
    import jax.numpy as jnp
    import mctx

    step, first, renewed = pgx_games(options)
    network, weights = globals()[options.network](options.seed)

    def follow(weights: Any, key: Any, action: Any, state: Any) -> Any:
        mover, state = state.current_player, step(state, action)
        logits, value = network(weights, state.observation)
        logits = jnp.where(state.legal_action_mask, logits, jnp.finfo(logits.dtype).min)
        reward = jnp.take_along_axis(state.rewards, mover[:, None], 1)[:, 0]
        live = jnp.where(state.terminated, 0.0, 1.0)
        seen = {"reward": reward, "discount": -live, "prior_logits": logits, "value": value * live}
        return mctx.RecurrentFnOutput(**seen), state

    @jax.jit
    def move(weights: Any, state: Any, key: Any) -> Any:
        key, searching = jax.random.split(key)
        logits, value = network(weights, state.observation)
        root = mctx.RootFnOutput(prior_logits=logits, value=value, embedding=state)
        illegal = ~state.legal_action_mask
        policy = mctx.gumbel_muzero_policy
        found = policy(weights, searching, root, follow, NUM_SIMULATIONS, illegal)
        return renewed(step(state, found.action), first), key

    state, key, answer = first, jax.random.key(options.seed), jax.jit(network)
    while options.alone:
        jax.block_until_ready(answer(weights, state.observation))
        yield {"rate": options.num_games}
    while True:
        state, key = jax.block_until_ready(move(weights, state, key))
        yield {"rate": options.num_games * NUM_SIMULATIONS}


def jax_layer(seed: int) -> tuple[Callable, Any]:
    import jax.numpy as jnp

    def network(weights: Any, observation: Any) -> tuple[Any, Any]:
        planes = observation.reshape(len(observation), -1).astype(jnp.float32)
        return planes @ weights[0], jnp.tanh(planes @ weights[1])

    return network, one_layer(seed)


def jax_tower(seed: int) -> tuple[Callable, Any]:
    """The layers of rlplay.nets.tower.Tower in float32, the last ones zero, as they begin. Channels
    come last, and convolutions are XLA's own: faster here than matrix products of shifted boards,
    and no slower than bfloat16."""
    import jax
    import jax.numpy as jnp

    random, relu = np.random.default_rng(seed), jax.nn.relu

    def layer(*shape: int, scale: float = 1) -> tuple[Any, Any]:
        weight = random.normal(0, scale * (2 / np.prod(shape[:-1])) ** 0.5, shape)
        return jnp.asarray(weight, jnp.float32), jnp.zeros(shape[-1])

    weights = {
        "first": layer(3, 3, 2, CHANNELS),
        "blocks": [[layer(3, 3, CHANNELS, CHANNELS) for _ in range(2)] for _ in range(BLOCKS)],
        "policy": [layer(1, 1, CHANNELS, 16), layer(16 * 42, 7, scale=0)],
        "value": [layer(1, 1, CHANNELS, 8), layer(8 * 42, 64), layer(64, 1, scale=0)],
    }

    def convolved(x: Any, one: Any) -> Any:
        axes = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, one[0], (1, 1), "SAME", dimension_numbers=axes)
        return x + one[1]

    def linear(x: Any, one: Any) -> Any:
        return x.reshape(len(x), -1) @ one[0] + one[1]

    def network(weights: Any, observation: Any) -> tuple[Any, Any]:
        x = relu(convolved(observation.astype(jnp.float32), weights["first"]))
        for one, two in weights["blocks"]:
            x = relu(x + convolved(relu(convolved(x, one)), two))
        planes, logits = weights["policy"]
        policy = linear(relu(convolved(x, planes)), logits)
        planes, hidden, points = weights["value"]
        value = linear(relu(linear(relu(convolved(x, planes)), hidden)), points)
        return policy, jnp.tanh(value[:, 0] / 2)

    return network, weights


def measure(options: Any) -> dict[str, float]:
    """Return what is done in a second after the first turn, which compiles, and when that was over,
    in seconds from the start of this process."""
    turns = globals()[options.measure](options)
    next(turns)
    result = {"first_s": time.time() - options.began, "first_cpu_s": time.process_time()}
    done, spent, started, computed = Counter(), 0.0, time.perf_counter(), time.process_time()
    watched = watching() if options.device == "cuda" else None
    while spent < options.seconds:
        done.update(next(turns))
        spent = time.perf_counter() - started
        result["cores"] = (time.process_time() - computed) / spent  # less where others took them
    if watched is not None:
        watched.terminate()
        result["gpu_percent"] = float(
            np.mean([float(line) for line in watched.communicate()[0].split()])
        )
    return result | {name: float(count) / spent for name, count in done.items()}


def watching() -> subprocess.Popen[str]:
    """Print every second in what share of the time the GPU was at work, percent."""
    what = "--query-gpu=utilization.gpu --format=csv,noheader,nounits --loop-ms=1000"
    return subprocess.Popen(["nvidia-smi", *what.split()], stdout=subprocess.PIPE, text=True)


def in_new_process(settings: dict[str, Any], python: str, cache: str) -> dict[str, Any]:
    if not settings["measure"].startswith(THEIRS):
        python = sys.executable
    command = [python, __file__, "--measure", json.dumps(settings | {"began": time.time()})]
    more = {"NUMBA_CACHE_DIR": f"{cache}/{settings['measure']}"} if "cache" in settings else {}
    done = subprocess.check_output(command, text=True, env=os.environ | more)
    return json.loads(done.splitlines()[-1]) | {"settings": settings}


def run_part(part: Part, options: Any) -> dict[str, Any]:
    rounds, runs = options.rounds or part.rounds, {side: [] for side in part.sides}
    common = {"seconds": options.seconds, "alone": False, "precision": "auto", "threads": 1}
    common |= {"device": "cpu", "tower": (BLOCKS, CHANNELS)}
    print(f"\n{part.about}; rounds: {rounds}, seconds: {options.seconds:g}", flush=True)
    for i in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            for side in list(part.sides)[:: -1 if i % 2 and part.turns else 1]:
                settings = common | {"seed": options.seed + i} | part.sides[side]
                runs[side].append(in_new_process(settings, options.peer_python, cache))
                print(row(side, runs[side][-1:]), flush=True)
    print("\n".join(["median", *(row(side, measured) for side, measured in runs.items())]))
    goals = [judged(goal, runs) for goal in part.goals]
    for g in goals:
        what = f"{g['side']}: {g['column']}" + (f" / {g['to']}" if g["to"] else "")
        print(f"{what}: {g['median']:.2f} ({g['min']:.2f} to {g['max']:.2f}), aim {g['aim']}")
    return {"about": part.about, "goals": goals, "runs": runs}


def judged(goal: Goal, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    below = [run["rate"] for run in runs[goal.to]] if goal.to else [1] * len(runs[goal.side])
    values = [run[goal.column] / b for run, b in zip(runs[goal.side], below, strict=True)]
    return goal._asdict() | {"median": median(values), "min": min(values), "max": max(values)}


def row(side: str, runs: list[dict[str, Any]]) -> str:
    middle = {name: median(run[name] for run in runs) for name in COLUMNS if name in runs[0]}
    cells = (f"{name} {format(value, COLUMNS[name])}" for name, value in middle.items())
    return f"  {side:<40}" + "".join(f"{cell:>18}" for cell in cells)


def main() -> None:
    from importlib.metadata import version

    from rlplay.run import system, write_json  # not at the top: the peers' Python lacks them

    there = parts()
    parser = argparse.ArgumentParser(description="rlplay's search beside its peers, connect four")
    parser.add_argument("part", nargs="?", default="all", choices=[*there, "all"])
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with pgx and mctx")
    parser.add_argument("--seconds", type=float, default=2, help="of each measurement")
    parser.add_argument("--rounds", type=int, help="how often each side is measured")
    parser.add_argument("--seed", type=int, default=0, help="of the first round; the next has +1")
    parser.add_argument("--out", type=Path, help="default: in benchmarks/results")
    options = parser.parse_args()
    every, done = options.part == "all", {}
    names = [name for name in there if name != "cuda"] if every else [options.part]
    peers = {}
    if any(s["measure"].startswith(THEIRS) for name in names for s in there[name].sides.values()):
        code = f"from importlib.metadata import version; print(*map(version, {PEERS}))"
        asked = subprocess.run([options.peer_python, "-c", code], stdout=subprocess.PIPE, text=True)
        if asked.returncode:
            parser.error(f"{options.peer_python} has no pgx and mctx: name one with --peer-python")
        peers = dict(zip(PEERS, asked.stdout.split(), strict=True))
    facts = {
        "about": (__doc__ or "").split("\n\n")[0].replace("\n", " "),
        "command": shlex.join(["python", *sys.argv]),
        "machine": system() | {"load_before": os.getloadavg()[0]},
        "peers": peers,
        "open_spiel": version("open_spiel"),
    }
    out = options.out or RESULTS / ("search.json" if every else f"search_{options.part}.json")
    for name in names:
        done[name] = run_part(there[name], options)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, {**facts, "parts": done})
    print(f"written to {out}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(argparse.Namespace(**json.loads(sys.argv[2])))))
    else:
        main()
