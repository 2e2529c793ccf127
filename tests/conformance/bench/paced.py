"""Faults under a steady load: what it costs the others that an upstream dies, hangs, or that one caller asks without end.

The load is `crossway-peers load --rate`: requests come when their time has come, whatever became of those before them, and
a request's time counts from then.
"""

import json
import pathlib
import socket
import statistics
import subprocess
import threading
import time

from bench.processes import free_port
from bench.running import listener

RATE = 5000  # requests a second while an endpoint dies
CALM = 600  # and while p99 is compared: far from what a small machine can do
NOISE = 500  # and of a caller who is refused
SECONDS, CONNECTIONS = 8, 64
ROUNDS, ROUND = 7, 3  # pairs of runs, seconds each: about 1800 requests for each p99
WORSE = 1.2  # how much longer p99 may be


def judge(bench):
    peers = pathlib.Path(bench.binary).with_name("crossway-peers")
    if not peers.exists():
        return print(f"not judged under a steady load: there is no {peers} (cargo build -p crossway-peers)")
    cases = {
        "X05 one of three endpoints is killed under load": killed,
        "X07 an upstream hangs, p99 of another's route": hung,
        "X42 one caller asks without end, p99 of another": noisy,
    }
    for name, case in cases.items():
        if not bench.only or bench.only in name:
            problem, note = case(bench, peers)
            bench.case(name, problem, note)


def origin(bench, peers):
    """A server that answers; the process and its port."""
    port = free_port()
    process = bench.start([peers, "origin", "--listen", f"127.0.0.1:{port}"], f"origin-{port}")
    process.wait_listening(port)
    return process, port


def load(peers, port, rate, seconds, *more):
    command = [peers, "load", "--target", f"127.0.0.1:{port}", "--rate", rate, "--seconds", seconds, *more]
    command = [str(part) for part in command]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def killed(bench, peers):
    origins = [origin(bench, peers) for _ in range(3)]
    endpoints = [{"address": f"127.0.0.1:{port}"} for _, port in origins]
    retry = {"attempts": 2, "on": ["connect_error", "reset"]}
    gateway = bench.gateway(
        {
            "listeners": [listener()],
            "limits": {"connections": {"per_client": 0}},
            "upstreams": {"back": {"endpoints": endpoints, "retry": retry, "outlier": {}}},
            "routes": [{"name": "all", "match": {"path": "/{rest...}"}, "auth": "none", "upstream": "back"}],
        }
    )
    ends = threading.Timer(SECONDS / 3, origins[0][0].child.kill)
    ends.start()
    came = load(peers, gateway.port(), RATE, SECONDS, "--connections", CONNECTIONS)
    ends.join()
    gateway.end()
    reached = came["requests"] / SECONDS
    note = f"{came['requests']} answered, {reached:.0f}/s of {RATE}/s, p99 {came['p99_us'] / 1000:.1f} ms"
    if came["errors"]:
        return f"{came['errors']} requests failed, first {came['first_error']}; {note}", None
    # What this machine cannot do is no fault of the gateway's; that it was not put to the test is said.
    return None, note if reached >= 0.95 * RATE else f"{note}: this machine does not reach the rate"


def compared(bench, peers, gateway, trouble):
    """Medians of p99 without and with trouble, of runs that take turns."""
    runs = {False: [], True: []}
    for turn in range(2 * ROUNDS):
        # Whichever was second is first in the next pair, so that a machine that slows down favours neither.
        is_troubled = turn % 4 in (1, 2)
        stop = trouble() if is_troubled else None
        came = load(peers, gateway.port(), CALM, ROUND, "--connections", 8, "--header", "X-Tenant: calm")
        if stop:
            stop()
        if came["errors"]:
            return f"{came['errors']} requests failed, first {came['first_error']}", None
        runs[is_troubled].append(came["p99_us"] / 1000)
    alone, beside = statistics.median(runs[False]), statistics.median(runs[True])
    ratio = beside / alone
    spread = ", ".join(f"{name} {min(all):.2f} to {max(all):.2f}" for name, all in (("alone", runs[False]), ("beside", runs[True])))
    note = f"p99 {alone:.2f} ms alone, {beside:.2f} ms beside it, {ratio:.2f} times; {spread}"
    return (note, None) if ratio >= WORSE else (None, note)


def hung(bench, peers):
    """Two hundred requests hang at one upstream; `max_in_flight` keeps more from it."""
    silent = socket.create_server(("127.0.0.1", 0), backlog=1024)
    _, port = origin(bench, peers)
    to = lambda port, **more: {"endpoints": [{"address": f"127.0.0.1:{port}"}], **more}
    gateway = bench.gateway(
        {
            "listeners": [listener()],
            "limits": {"connections": {"per_client": 0}},
            "upstreams": {"back": to(port), "hung": to(silent.getsockname()[1], retry={"attempts": 0})},
            "routes": [
                {"name": "hung", "match": {"path": "/hung"}, "auth": "none", "upstream": "hung"},
                {"name": "all", "match": {"path": "/{rest...}"}, "auth": "none", "upstream": "back"},
            ],
        }
    )

    def trouble():
        waiting = [socket.create_connection(("127.0.0.1", gateway.port())) for _ in range(200)]
        for connection in waiting:
            connection.sendall(b"GET /hung HTTP/1.1\r\nHost: judge.example\r\n\r\n")
        time.sleep(0.5)  # until all of them hang
        return lambda: [connection.close() for connection in waiting]

    result = compared(bench, peers, gateway, trouble)
    gateway.end()
    silent.close()
    return result


def noisy(bench, peers):
    """One caller asks far above its limit, and is refused: by a program that costs this machine little."""
    _, port = origin(bench, peers)
    limit = {"policies": [{"name": "each", "key": ["header:X-Tenant"], "limit": 2 * CALM, "per": "1s"}]}
    # The load takes a few answers that it does not expect, and ends at more.
    tight = {"policies": [{"name": "noisy", "key": ["header:X-Noise"], "limit": 5, "per": "1d"}]}
    gateway = bench.gateway(
        {
            "listeners": [listener()],
            "limits": {"connections": {"per_client": 0}},
            "upstreams": {"back": {"endpoints": [{"address": f"127.0.0.1:{port}"}]}},
            "routes": [
                {
                    "name": "noise",
                    "match": {"path": "/{rest...}", "headers": {"X-Noise": "noisy"}},
                    "auth": "none",
                    "upstream": "back",
                    "plugins": [{"rate_limit": tight}],
                },
                {
                    "name": "all",
                    "match": {"path": "/{rest...}"},
                    "auth": "none",
                    "upstream": "back",
                    "plugins": [{"rate_limit": limit}],
                },
            ],
        }
    )

    def trouble():
        command = [peers, "load", "--target", f"127.0.0.1:{gateway.port()}", "--rate", NOISE, "--seconds", 60]
        command += ["--connections", 1, "--header", "X-Noise: noisy", "--status", 429]
        noise = bench.start(command, "noise")
        return noise.end

    result = compared(bench, peers, gateway, trouble)
    gateway.end()
    return result
