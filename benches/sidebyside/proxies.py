"""The proxies that only pass on, one entry each."""

import dataclasses
import os
import pathlib

# Settings that bare Pingora shares with Crossway: gateway/src/front/mod.rs has the buffers.
POOL, READ_BUFFER, WRITE_BUFFER = 512, 2048, 1460

ADMIN_TOKEN = "only-for-this-benchmark"


@dataclasses.dataclass(frozen=True)
class Proxy:
    """How a proxy is started for a scenario. `start(run)` writes its files and returns its arguments."""

    does: str
    start: object
    ready_path: str = ""  # asked on the admin port; without it the first right answer counts
    response_headers: tuple = ()  # must be in every answer: proof that the proxy does what `does` says
    access_log: bool = False
    refuses: bool = False  # whether a request without a credential is answered 401
    decisions: object = None  # `decisions(run)` says how often it has judged a limit, by its own count


@dataclasses.dataclass(frozen=True)
class Run:
    """What one start of a proxy is given."""

    dir: pathlib.Path
    bin: dict
    origin: str
    port: int
    admin: int
    tls: bool = False

    @property
    def listen(self):
        return f"127.0.0.1:{self.port}"

    @property
    def shared(self):
        """The folder of what all proxies share."""
        return self.dir.parent

    @property
    def certificate(self):
        return self.shared / "certificate.pem"

    @property
    def key(self):
        return self.shared / "key.pem"


def start_bare(run):
    return [
        run.bin["crossway-peers"], "bare", "--listen", run.listen, "--origin", run.origin, "--threads", "1",
        "--pool", str(POOL), "--read-buffer", str(READ_BUFFER), "--write-buffer", str(WRITE_BUFFER),
        *(["--certificate", str(run.certificate), "--key", str(run.key)] if run.tls else []),
    ]


def crossway(run, plugins="", *, more=""):
    """Crossway with these plugins of its route; without them the route takes everybody. `more` are other sections."""
    config = run.dir / "crossway.yaml"
    pair = f'{{ cert: "{run.certificate}", key: "${{file:{run.key}}}" }}'
    tls = f", http2: false, tls: {{ certificates: [{pair}] }}" if run.tls else ""
    config.write_text(f"""\
listeners: [{{ name: public, address: "{run.listen}"{tls} }}]
admin: {{ address: "127.0.0.1:{run.admin}", token: {ADMIN_TOKEN} }}
limits: {{ client: {{ requests_per_connection: 100000000 }} }}
runtime: {{ threads: 1, drain: {{ readiness_delay: 0s, deadline: 5s }} }}
telemetry: {{ access_log: {{ to: "file:{run.dir}/access.log" }} }}
plugins:
  - request_id: {{}}
  - headers: {{ response: {{ set: {{ X-Gateway: crossway }} }} }}
upstreams:
  origin: {{ endpoints: [{{ address: "{run.origin}" }}] }}
routes:
  - name: all
    match: {{ path: "/{{rest...}}" }}
    {f"plugins: {plugins}" if plugins else "auth: none"}
    upstream: origin
{more}""")
    return [run.bin["crossway"], "run", "-c", str(config)]


def start_nginx(run):
    config = run.dir / "nginx.conf"
    listen = f"listen {run.listen} backlog=4096;"
    if run.tls:
        listen = f"""listen {run.listen} ssl backlog=4096; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_certificate {run.certificate}; ssl_certificate_key {run.key};"""
    config.write_text(f"""\
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1; daemon off; pid {run.dir}/nginx.pid; error_log {run.dir}/nginx.err;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000;
  client_body_temp_path {run.dir}/body; proxy_temp_path {run.dir}/proxy; fastcgi_temp_path {run.dir}/fastcgi;
  uwsgi_temp_path {run.dir}/uwsgi; scgi_temp_path {run.dir}/scgi;
  upstream origin {{ server {run.origin}; keepalive {POOL}; keepalive_requests 100000000; }}
  server {{
    {listen}
    location / {{ proxy_pass http://origin; proxy_http_version 1.1; proxy_set_header Connection ""; }}
  }}
}}
""")
    return [run.bin["nginx"], "-e", f"{run.dir}/nginx.err", "-c", str(config)]


PROXIES = {
    "crossway": Proxy(
        does="route, request id, response header, access log, metrics",
        start=crossway,
        ready_path="/readyz",
        response_headers=("X-Gateway", "X-Request-Id"),
        access_log=True,
    ),
    "bare": Proxy(does="Pingora 0.9.1, proxying only", start=start_bare),
    "nginx": Proxy(does="proxying only, access log off", start=start_nginx),
}
