"""Rounds of load, and idle connections."""

import contextlib
import json
import subprocess

from . import Failure, bearer, note
from .processes import cpu_seconds, load_command, rss_kib, settled_rss_kib, started_proxy


def measure(name, child, run, scenario, env, options, index):
    """One proxy in the round with this index."""
    seconds, connections = str(options.seconds), str(options.connections)
    command = load_command(env, "load", run, scenario, "--seconds", seconds, "--connections", connections)
    if scenario.bearer == "new":
        command += ["--bearers", str(bearer.new_tokens(env, index))]
    before = cpu_seconds(child.pid)
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.seconds + 30, check=False)
    if done.returncode != 0 or child.poll() is not None:
        raise Failure(f"{name}: the load generator or the proxy failed: {done.stderr[-500:]}")
    result = json.loads(done.stdout)
    cpu = cpu_seconds(child.pid) - before
    result["cpu_us"] = cpu * 1e6 / result["requests"] if result["requests"] else None
    result["busy"] = cpu / result["seconds"]
    return result


def run_rounds(names, scenario, env, options):
    """All proxies in turn, in rounds whose order rotates; the first round only warms up."""
    results = {name: {"rounds": []} for name in names}
    with contextlib.ExitStack() as stack:
        started = {name: stack.enter_context(started_proxy(name, scenario, env)) for name in names}
        for index in range(options.rounds):
            for name in names[index % len(names) :] + names[: index % len(names)]:
                note(f"round {index + 1} of {options.rounds}{' (warm-up)' if index == 0 else ''}: {name}")
                results[name]["rounds"].append(measure(name, *started[name], scenario, env, options, index))
        for name, (child, run) in started.items():
            results[name]["rss_kib"] = rss_kib(child.pid)
            if judged := scenario.proxies[name].decisions:
                results[name]["decisions"] = int(judged(run))
    for name, (_, run) in started.items():
        if scenario.proxies[name].access_log:
            results[name]["logged"] = count_lines(run.dir / "access.log")
    return results


def count_lines(path):
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def run_idle(names, scenario, env, options):
    """What an idle connection costs in a fresh process that has seen some load."""
    results = {}
    for name in names:
        note(f"{options.idle} idle connections: {name}")
        with started_proxy(name, scenario, env) as (child, run):
            # What the first requests allocate once is not a cost of the idle connections.
            warm = load_command(env, "load", run, scenario, "--seconds", "0.3", "--connections", "1")
            subprocess.run(warm, capture_output=True, timeout=30, check=True)
            before = settled_rss_kib(child.pid)
            after, still_open = hold_idle(child, run, scenario, env, options)
            results[name] = {
                "before_kib": before,
                "open_kib": after,
                "per_connection_kib": (after - before) / options.idle,
                "still_open": still_open,
            }
    return results


def hold_idle(child, run, scenario, env, options):
    command = load_command(env, "idle", run, scenario, "--connections", str(options.idle))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        if not holder.stdout.readline():
            raise Failure("the idle connections cannot be opened")
        after = settled_rss_kib(child.pid)
        holder.stdin.close()
        return after, json.loads(holder.stdout.readline())["open"]
