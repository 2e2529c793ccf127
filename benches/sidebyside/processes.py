"""Processes on a core of their own, and what they use."""

import contextlib
import os
import pathlib
import resource
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

from . import Failure
from .proxies import Run

LOAD_CORE, PROXY_CORE = 0, 1  # the origin shares the first with the load
START_SECONDS = 15
PROBE_PATH = "/customers/C-0000000000"


def tree(pid):
    """A process and all below it."""
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid] + [below for child in children for below in tree(int(child))]


def cpu_seconds(pid):
    """User and system time of a process and all below it."""
    ticks = 0
    for one in tree(pid):
        # The name in parentheses can hold spaces; user and system time are fields 14 and 15.
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def rss_kib(pid):
    """Resident memory of a process and all below it; pages that they share count for each."""
    pages = sum(int(pathlib.Path(f"/proc/{one}/statm").read_text().split()[1]) for one in tree(pid))
    return pages * resource.getpagesize() // 1024


def peak_rss_kib(pid):
    """The most resident memory that a process ever had."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def settled_rss_kib(pid):
    """Resident memory when it has not changed for half a second, or after five seconds."""
    last, since, end = rss_kib(pid), time.monotonic(), time.monotonic() + 5
    while time.monotonic() < min(since + 0.5, end):
        time.sleep(0.05)
        if (now := rss_kib(pid)) != last:
            last, since = now, time.monotonic()
    return last


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextlib.contextmanager
def process(arguments, core, output):
    """A process on one core, ended by its id."""
    with output.open("wb") as out:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def get(url, headers):
    request = urllib.request.Request(url, headers=dict(h.split(": ", 1) for h in headers))
    # Only the load generator needs to know whom it speaks to.
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    https = urllib.request.HTTPSHandler(context=trusting)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)
    with opener.open(request, timeout=2) as response:
        return response.headers, response.read()


def wait_ready(child, name, urls, output, headers=(), pause=0.05):
    """Waits until each address answers 200; returns the last answer's header fields."""
    end, answer = time.monotonic() + START_SECONDS, None
    for url in urls:
        answer = None
        while answer is None:
            if child.poll() is not None or time.monotonic() > end:
                said = output.read_text(errors="replace")[-2000:]
                raise Failure(f"{name} did not start:\n{said}")
            try:
                answer = get(url, headers)
            except (OSError, urllib.error.URLError):
                time.sleep(pause)
    return answer[0]


def status(url, headers=()):
    """The status of an answer."""
    try:
        get(url, headers)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


@contextlib.contextmanager
def started_proxy(name, scenario, env):
    """A proxy that is ready and does what its row says."""
    proxy = scenario.proxies[name]
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"{name}-", dir=env["dir"]))
    port, admin = free_ports(2)
    run = Run(dir=directory, bin=env["bin"], origin=env["origin"], port=port, admin=admin, tls=scenario.tls)
    if run.tls and not run.certificate.exists():
        subprocess.run([env["bin"]["crossway-peers"], "certificate", "--folder", run.certificate.parent], check=True)
    output = directory / "output"
    with process(proxy.start(run), PROXY_CORE, output) as child:
        urls = [f"http://127.0.0.1:{admin}{proxy.ready_path}"] if proxy.ready_path else []
        urls.append(f"{'https' if run.tls else 'http'}://{run.listen}{PROBE_PATH}")
        headers = wait_ready(child, name, urls, output, request_headers(scenario, env))
        if proxy.refuses and status(urls[-1]) != 401:
            raise Failure(f"{name} lets a request without a credential pass: its row would not be true")
        if proxy.decisions and not any(status(urls[-1], scenario.seldom) == 429 for _ in range(20)):
            raise Failure(f"{name} does not hold to its limit: its row would not be true")
        for field in proxy.response_headers:
            if field not in headers:
                raise Failure(f"{name} does not set {field}: its row would not be true")
        yield child, run


@contextlib.contextmanager
def started_origin(binaries, directory):
    (port,) = free_ports(1)
    output = directory / "origin-output"
    command = [binaries["crossway-peers"], "origin", "--listen", f"127.0.0.1:{port}"]
    with process(command, LOAD_CORE, output) as child:
        wait_ready(child, "the origin", [f"http://127.0.0.1:{port}{PROBE_PATH}"], output)
        yield f"127.0.0.1:{port}"


def load_command(env, kind, run, scenario, *more):
    command = ["taskset", "-c", str(LOAD_CORE), env["bin"]["crossway-peers"], kind, "--target", run.listen, *more]
    if run.tls:
        command += ["--authority", str(run.certificate)]
    if kind == "load":
        command += scenario.load
    if scenario.bearer != "new" or kind != "load":
        command += [part for header in request_headers(scenario, env) for part in ("--header", header)]
    return command


def request_headers(scenario, env):
    """What each request carries: tokens that are new each time the load puts in itself."""
    return [*scenario.headers, *([f"Authorization: Bearer {env['token']}"] if scenario.bearer else [])]
