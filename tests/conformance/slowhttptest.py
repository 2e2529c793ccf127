"""slowhttptest (Debian package of that name): clients that send headers, send bodies and read as slowly as they can.

Beside each of its attacks, slow clients of our own show when each is cut, and a probe that others are served meanwhile.

All of it runs in a network of its own with packets as small as on a real one: on the machine's loopback the kernel takes
2.5 MiB for each client that does not read, and runs out of memory for sockets before it comes to the gateway.
"""

import csv
import os
import resource
import shutil
import subprocess
import sys
import time

from bench import Unavailable
from bench.attack import Attackers, Probe
from bench.processes import free_port, until
from bench.running import listener, passing_to
from bench.watch import Watch

CONNECTIONS, OWN = 600, 50
HEADER_DEADLINE, IDLE, GRACE = 5, 8, 2  # seconds
EARLY = 0.5  # seconds by which a connection may have been open before the last of its kind was
LENGTH = 30  # seconds an attack may last; every connection is cut long before
LIMITS = {
    "client": {"header_deadline": f"{HEADER_DEADLINE}s", "idle": f"{IDLE}s", "min_rate": "1KiB/s"},
    "connections": {"per_client": 0},
}
# Mode, what we do beside it, when both must be cut, and the mode's own options.
MODES = [
    ("-H", "slow headers", HEADER_DEADLINE, ["headers", "headers, then silence"], ["-i", 2, "-x", 24]),
    ("-B", "slow body", IDLE, ["body", "body, then silence", "chunked body"], ["-i", 2, "-x", 10, "-s", 8192]),
    ("-X", "slow read", IDLE, ["read", "read, then nothing"], ["-w", 10, "-y", 20, "-n", 1, "-z", 5, "-k", 1]),
]  # fmt: skip


OWN_NETWORK = "CROSSWAY_CONFORMANCE_OWN_NETWORK"  # set in the environment of the run inside


def judge(bench):
    if OWN_NETWORK not in os.environ:
        run_again_in_own_network(bench)
    judge_here(bench)


def run_again_in_own_network(bench):
    if not (shutil.which("unshare") and shutil.which("ip")):
        raise Unavailable("a network of its own needs unshare and ip: apt-get install util-linux iproute2")
    unshare = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        raise Unavailable(f"`{' '.join(unshare)}` is not allowed here")
    setup = 'ip link set lo mtu 1500 up && exec "$@"'
    command = [*unshare, "sh", "-c", setup, "sh", sys.executable, *sys.argv]
    bench.end()
    os.execvpe(command[0], command, {**os.environ, OWN_NETWORK: "1"})


def judge_here(bench):
    program = bench.from_suite("slowhttptest") or shutil.which("slowhttptest")
    if not program:
        raise Unavailable("slowhttptest is not installed: apt-get install slowhttptest, or give --suite DIR")
    allow_open_files(8192)
    attacked, probed = start_backend(bench, "attacked"), start_backend(bench, "probed")
    config = passing_to(attacked)
    config["upstreams"]["probed"] = {"endpoints": [{"address": f"127.0.0.1:{probed}"}]}
    config["routes"].append({"name": "probe", "match": {"path": "/probe"}, "auth": "none", "upstream": "probed"})
    gateway = bench.gateway({"listeners": [listener()], "limits": LIMITS, **config})
    for mode in MODES:
        if not bench.only or bench.only in mode[1]:
            attack(bench, program, gateway, mode)


def start_backend(bench, name):
    """A backend of its own for the probe: the gateway is judged, not how much the other can bear."""
    port = free_port()
    bench.start([sys.executable, bench.own("backend.py"), port], f"backend-{name}").wait_listening(port)
    return port


def allow_open_files(wanted):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < wanted:
        raise Unavailable(f"a process may open {hard} files here, and {wanted} are needed")
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def attack(bench, program, gateway, mode):
    option, name, deadline, kinds, options = mode
    port, before = gateway.port(), open_files(gateway)
    watch, probe = Watch(port, owing=option == "-X"), Probe(port)
    watch.start()
    probe.start()
    target = f"http://127.0.0.1:{port}/{'big' if option == '-X' else ''}"
    prefix = bench.reports / name.replace(" ", "-")
    command = [program, option, "-c", CONNECTIONS, "-r", 300, "-l", LENGTH, "-p", 3, "-g", "-o", prefix, *options]
    running = bench.start([*command, "-u", target], f"slowhttptest{option}")
    own = [Attackers(port, kind, OWN) for kind in kinds]
    for attackers in own:
        attackers.start()
    ended = running.wait(LENGTH + 30) is not None
    closed = time.monotonic() + deadline + GRACE
    while time.monotonic() < closed and len(watch.cut) < len(watch.seen):
        time.sleep(0.1)
    lingering = watch.lingering()
    probe.stop()
    watch.stop()
    for attackers in own:
        report_own(bench, name, deadline, attackers, watch)
        attackers.stop()
    report_theirs(bench, name, deadline, watch, probe, own)
    report_availability(bench, name, ended, prefix, probe)
    report_leftovers(bench, name, gateway, before, lingering)


def report_own(bench, name, deadline, attackers, watch):
    now = time.monotonic()
    seen = [port for port in attackers.ports if port in watch.seen]
    lives = [watch.cut.get(port, now) - watch.seen[port] for port in seen]
    # The first sight may come late, where the machine is busy, but never before the connection.
    earliest = min((watch.cut.get(port, now) for port in seen), default=now) - attackers.opened
    longest = max(lives, default=0)
    problem = None
    if len(seen) < len(attackers.ports):
        problem = f"{len(attackers.ports) - len(seen)} were cut before they were seen"
    elif not (deadline - EARLY <= earliest and longest <= deadline + GRACE):
        problem = f"cut after {earliest:.1f} to {longest:.1f} s, and not {deadline} to {deadline + GRACE} s"
    note = f"{len(lives)} cut after {earliest:.1f} to {longest:.1f} s"
    bench.case(f"{name}: own {attackers.kind} cut at {deadline} s", problem, note)


def report_theirs(bench, name, deadline, watch, probe, own):
    others = probe.ports.union(*(attackers.ports for attackers in own))
    lives = watch.lifetimes(others)
    longest = max(lives, default=0)
    problem = None
    if len(lives) < CONNECTIONS:
        problem = f"only {len(lives)} connections were seen"
    elif longest > deadline + GRACE:
        late = sum(life > deadline + GRACE for life in lives)
        problem = f"{late} of {len(lives)} were cut later, the last after {longest:.1f} s"
    note = f"{len(lives)} seen, the longest for {longest:.1f} s"
    bench.case(f"{name}: all of slowhttptest's cut within {deadline + GRACE} s", problem, note)


def report_availability(bench, name, ended, prefix, probe):
    file = prefix.with_suffix(".csv")
    rows = list(csv.DictReader(file.open())) if file.exists() else []
    away = [row["Seconds"] for row in rows if row["Service Available"] == "0"]
    problem = None if ended and rows else "it did not end, or left no report"
    if away:
        problem = f"slowhttptest found the service away in seconds {', '.join(away)}"
    bench.case(f"{name}: slowhttptest is served all the time", problem, f"{len(rows)} s")
    problem = None
    if probe.failures:
        first = probe.failures[0][1]
        problem = f"{len(probe.failures)} of {probe.count} failed, in {probe.seconds_failed()} s; the first: {first}"
    note = f"0 s failed, {probe.count} probes, the slowest took {probe.slowest * 1000:.0f} ms"
    bench.case(f"{name}: the probe is served all the time", problem, note)


def report_leftovers(bench, name, gateway, before, lingering):
    problem = None
    try:
        until(lambda: open_files(gateway) <= before + 8, "the gateway's files are closed", 15)
    except RuntimeError:
        problem = f"{open_files(gateway)} are open, {before} were before"
    note = f"{lingering} closed connections were still held by the kernel" if lingering else None
    bench.case(f"{name}: the gateway's files are closed again", problem, note)


def open_files(gateway):
    return len(os.listdir(f"/proc/{gateway.pid}/fd"))
