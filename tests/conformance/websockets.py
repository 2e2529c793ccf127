"""websockets (PyPI): a client and an echo server of others, through the gateway and without it.

A case passes when what the client sees through the gateway is what it sees without it. Wants no Python 2, as `autobahn`
does, but knows fewer cases.
"""

import json

from bench.packages import environment
from bench.processes import free_port
from bench.running import listener, passing_to

PACKAGE = "websockets==15.0.1"
LONGEST = 300  # seconds


def judge(bench):
    python = environment(bench, "websockets", [PACKAGE]) / "python"
    port = free_port()
    program = bench.own("websocket_cases.py")
    bench.start([python, program, "serve", port], "echo-server").wait_listening(port)
    telemetry = {"access_log": {"to": "stdout"}}
    config = {"listeners": [listener()], "telemetry": telemetry, **passing_to(port, websocket={"idle": "5m"})}
    through = bench.gateway(config).port()
    direct = observe(bench, [python, program, "observe", port], "direct")
    gateway = observe(bench, [python, program, "observe", through], "gateway")
    for name, expected in direct.items():
        if bench.only and bench.only not in name:
            continue
        seen = gateway.get(name, "nothing")
        problem = None if seen == expected else f"{seen}; without the gateway {expected}"
        if str(expected).startswith("failed: "):
            problem = f"cannot be judged: {expected} without the gateway"
        bench.case(name, problem)


def observe(bench, command, label):
    report = bench.reports / f"{label}.json"
    run = bench.start([*command, report], f"client-{label}")
    if run.wait(LONGEST) != 0 or not report.exists():
        bench.case(f"{label}: the client ends", f"it did not: {run.output()[-500:]}")
        return {}
    return json.loads(report.read_text())
