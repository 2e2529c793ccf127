"""HAProxy: one worker, an access log, and the rules of a scenario."""

from .proxies import POOL


def haproxy(run, rules, *, tables=""):
    """HAProxy with these lines in its frontend, and these sections after the others."""
    config = run.dir / "haproxy.cfg"
    rules = "\n".join(f"  {rule}" for rule in rules)
    config.write_text(f"""\
global
  nbthread 1
  maxconn 8192
  log stdout format raw local0
  stats socket {run.dir}/admin.sock level operator
defaults
  mode http
  log global
  option httplog
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
frontend public
  bind {run.listen}
{rules}
  http-request set-header X-Request-Id %[uuid()]
  http-response set-header X-Gateway haproxy
  default_backend origin
backend origin
  server one {run.origin} pool-max-conn {POOL}
{tables}""")
    return [run.bin["haproxy"], "-db", "-f", str(config)]
