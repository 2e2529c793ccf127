"""The proxies that know a caller by an API key, and bound how often it may ask."""

import hashlib
import socket

from .envoy import KIND, envoy
from .haproxy import haproxy
from .processes import get
from .proxies import ADMIN_TOKEN, Proxy, crossway, start_bare

# The first is under load and never at its bound; the second shows that the bound holds.
KEYS = {"often": "key-of-who-asks-often", "seldom": "key-of-who-asks-seldom"}
LIMITS = {"often": 1_000_000, "seldom": 2}  # in a second
OFTEN, SELDOM = (f"X-API-Key: {KEYS[name]}" for name in KEYS)


def start_crossway(run):
    consumers = "".join(
        f"  - {{ name: {name}, groups: [{name}], credentials: [{{ api_key: {{ sha256: {hashlib.sha256(key.encode()).hexdigest()} }} }}] }}\n"
        for name, key in KEYS.items()
    )
    return crossway(run, f"""
      - api_key: {{}}
      - rate_limit:
          policies:
            - {{ name: each, key: [consumer], limit: {LIMITS["often"]}, per: 1s, tiers: {{ seldom: {{ limit: {LIMITS["seldom"]} }} }} }}""",
        more=f"consumers:\n{consumers}")


def admin_get(run, path):
    return get(f"http://127.0.0.1:{run.admin}{path}", [f"Authorization: Bearer {ADMIN_TOKEN}"])[1].decode()


def decisions_of_crossway(run):
    return sum(
        float(line.rpartition(" ")[2])
        for line in admin_get(run, "/metrics").splitlines()
        if line.startswith("crossway_plugin_events_total{") and 'plugin="rate_limit"' in line
        and ('event="allowed"' in line or 'event="refused"' in line)
    )


def start_haproxy(run):
    names, limits = run.dir / "names.map", run.dir / "limits.map"
    names.write_text("".join(f"{key} {name}\n" for name, key in KEYS.items()))
    limits.write_text("".join(f"{name} {limit}\n" for name, limit in LIMITS.items()))
    return haproxy(run, [
        f"http-request set-var(txn.consumer) req.hdr(X-API-Key),map({names})",
        "http-request deny deny_status 401 unless { var(txn.consumer) -m found }",
        f"http-request set-var(txn.limit) var(txn.consumer),map_str_int({limits})",
        "http-request track-sc0 var(txn.consumer) table callers",
        "http-request deny deny_status 429 if { sc_http_req_rate(0),sub(txn.limit) -m int gt 0 }",
        "http-request set-header X-Consumer-Name %[var(txn.consumer)]",
        "http-request del-header X-API-Key",
    ], tables="""\
backend callers
  stick-table type string len 64 size 100k expire 10m store http_req_cnt,http_req_rate(1s)
""")


def decisions_of_haproxy(run):
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(str(run.dir / "admin.sock"))
        asked.sendall(b"show table callers\n")
        table = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
    return sum(int(word.removeprefix("http_req_cnt=")) for word in table.split() if word.startswith("http_req_cnt="))


def start_envoy(run):
    buckets = {name: f"{{ max_tokens: {n}, tokens_per_fill: {n}, fill_interval: 1s }}" for name, n in LIMITS.items()}
    descriptors = "\n".join(
        f"            - {{ entries: [{{ key: consumer, value: {name} }}], token_bucket: {bucket} }}"
        for name, bucket in buckets.items()
    )
    keys = ", ".join(f"{{ key: {key}, client: {name} }}" for name, key in KEYS.items())
    always = "{ default_value: { numerator: 100, denominator: HUNDRED } }"
    return envoy(run, f"""
        - name: envoy.filters.http.api_key_auth
          typed_config:
            "@type": {KIND}.filters.http.api_key_auth.v3.ApiKeyAuth
            credentials: [{keys}]
            key_sources: [{{ header: X-API-Key }}]
            forwarding: {{ header: X-Consumer-Name, hide_credentials: true }}
        - name: envoy.filters.http.local_ratelimit
          typed_config:
            "@type": {KIND}.filters.http.local_ratelimit.v3.LocalRateLimit
            stat_prefix: each
            token_bucket: {buckets["often"]}
            filter_enabled: {always}
            filter_enforced: {always}
            enable_x_ratelimit_headers: DRAFT_VERSION_03
            rate_limits: [{{ actions: [{{ request_headers: {{ header_name: X-Consumer-Name, descriptor_key: consumer }} }}] }}]
            descriptors:
{descriptors}
        """)


def decisions_of_envoy(run):
    lines = admin_get(run, "/stats?filter=http_local_rate_limit").splitlines()
    return sum(int(line.rpartition(" ")[2]) for line in lines if line.partition(":")[0].endswith((".ok", ".rate_limited")))


DOES = "the key known, a limit for its owner, X-Consumer-Name for the origin, request id, response header, access log"
LIMITED = {
    "crossway": Proxy(
        does=f"{DOES}, RateLimit fields, metrics; only hashes of keys are kept",
        start=start_crossway,
        ready_path="/readyz",
        response_headers=("X-Gateway", "X-Request-Id", "RateLimit"),
        access_log=True,
        refuses=True,
        decisions=decisions_of_crossway,
    ),
    "bare": Proxy(does="Pingora 0.9.1, proxying only", start=start_bare),
    "haproxy": Proxy(
        does=f"{DOES}; a stick table",
        start=start_haproxy,
        response_headers=("X-Gateway",),
        refuses=True,
        decisions=decisions_of_haproxy,
    ),
    "envoy": Proxy(
        does=f"{DOES}, X-RateLimit fields; local rate limit",
        start=start_envoy,
        response_headers=("X-Gateway", "X-RateLimit-Limit"),
        refuses=True,
        decisions=decisions_of_envoy,
    ),
}
