"""Runs the cases through the gateway, without and with TLS, then lets it drain while a stream is on its way."""

import argparse
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import cases
import grpc

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
PATIENCE = 20

CHANNEL = [
    ("grpc.keepalive_time_ms", 500),
    ("grpc.keepalive_timeout_ms", 2000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]

CONFIG = """
listeners:
  - {{ name: plain, address: "127.0.0.1:{plain}", http2: true }}
  - name: secure
    address: "127.0.0.1:{secure}"
    tls: {{ certificates: [{{ cert: cert.pem, key: "${{file:key.pem}}" }}] }}
runtime: {{ drain: {{ readiness_delay: 0s, deadline: 20s }} }}
limits: {{ request: {{ body: 64MiB }} }}
upstreams:
  server: {{ endpoints: [{{ address: "127.0.0.1:{server}" }}], http2: true }}
  gone: {{ endpoints: [{{ address: "127.0.0.1:{gone}" }}], http2: true }}
routes:
  - {{ name: echo, match: {{ path: "/echo.Echo/{{method}}" }}, auth: none, upstream: server }}
  - {{ name: health, match: {{ path: "/grpc.health.v1.Health/{{method}}" }}, auth: none, upstream: server }}
  - name: reflection
    match: {{ path: "/grpc.reflection.v1alpha.ServerReflection/{{method}}" }}
    auth: none
    upstream: server
  - {{ name: keyed, match: {{ path: "/keyed.Keyed/{{method}}" }}, plugins: [api_key: {{}}], upstream: server }}
  - {{ name: gone, match: {{ path: "/gone.Gone/{{method}}" }}, auth: none, upstream: gone }}
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_for(port, process):
    until = time.monotonic() + PATIENCE
    while True:
        if process.poll() is not None:
            sys.exit(f"the gateway ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > until:
                sys.exit(f"nobody listens on port {port}")
            time.sleep(0.05)


def start_server():
    server = subprocess.Popen([sys.executable, HERE / "server.py"], stdout=subprocess.PIPE, text=True)
    return server, int(server.stdout.readline())


def start_gateway(program, folder, server):
    """The gateway in front of the server: the process, its plain port and its port with TLS."""
    plain, secure, gone = free_ports(3)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    config = folder / "gateway.yaml"
    config.write_text(CONFIG.format(plain=plain, secure=secure, server=server, gone=gone))
    gateway = subprocess.Popen([program, "run", "-c", config])
    wait_for(plain, gateway)
    wait_for(secure, gateway)
    return gateway, plain, secure


class Tally:
    """Runs cases and counts."""

    def __init__(self, only):
        self.only, self.passed, self.failed = only, 0, 0

    def run(self, group, name, case):
        title = f"{group}: {name.replace('_', ' ')}"
        if self.only and self.only not in title:
            return
        begun = time.monotonic()
        try:
            case()
        except Exception as error:  # whatever it is, the next case has its turn
            self.failed += 1
            print(f"FAILED  {title}: {describe(error)}", flush=True)
        else:
            self.passed += 1
            print(f"ok      {title} ({time.monotonic() - begun:.2f} s)", flush=True)

    def run_all(self, group, list_of_cases, channel):
        for case in list_of_cases:
            self.run(group, case.__name__, lambda case=case: case(channel))


def describe(error):
    if isinstance(error, grpc.RpcError):
        return f"{error.code()} {error.details()}"
    return f"{type(error).__name__}: {error}"


def a_stream_survives_the_drain(channel, process):
    answers = channel.unary_stream("/echo.Echo/ServerStream")(b"10 300", timeout=PATIENCE)
    first = next(answers)
    process.send_signal(signal.SIGTERM)
    cases.expect([first, *answers], [str(at).encode() for at in range(10)])
    cases.expect(process.wait(PATIENCE), 0, "the process ended with")


def default_program():
    built = [ROOT / "target" / profile / "crossway" for profile in ("release", "debug")]
    return next((program for program in built if program.exists()), built[0])


def main():
    parser = argparse.ArgumentParser(prog="scripts/conformance grpcio", description=__doc__)
    parser.add_argument("--bin", type=pathlib.Path, default=default_program(), help="the gateway's program")
    parser.add_argument("--direct", action="store_true", help="leave the gateway out: client and server alone")
    parser.add_argument("--only", help="only cases whose title holds this text")
    parser.add_argument("--plain-only", action="store_true", help="leave out the listener with TLS")
    given = parser.parse_args()
    tally = Tally(given.only)
    server, port = start_server()
    processes = [server]
    try:
        with tempfile.TemporaryDirectory() as folder:
            if given.direct:
                with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL) as channel:
                    tally.run_all("direct", cases.ALL, channel)
                    tally.run("direct", "drain", lambda: a_stream_survives_the_drain(channel, server))
            else:
                folder = pathlib.Path(folder)
                gateway, plain, secure = start_gateway(given.bin.resolve(), folder, port)
                processes.append(gateway)
                through(tally, gateway, plain, secure, folder, given.plain_only)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    print(f"passed {tally.passed}, failed {tally.failed}")
    sys.exit(1 if tally.failed or not tally.passed else 0)


def through(tally, gateway, plain, secure, folder, plain_only):
    every = cases.ALL + cases.GATEWAY
    if not plain_only:
        trusted = grpc.ssl_channel_credentials((folder / "cert.pem").read_bytes())
        with grpc.secure_channel(f"localhost:{secure}", trusted, options=CHANNEL) as channel:
            tally.run_all("TLS", every, channel)
    with grpc.insecure_channel(f"127.0.0.1:{plain}", options=CHANNEL) as channel:
        tally.run_all("plain", every, channel)
        tally.run("plain", "drain", lambda: a_stream_survives_the_drain(channel, gateway))


if __name__ == "__main__":
    main()
