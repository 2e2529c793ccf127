"""The proxies that verify a bearer token: a JWT, signed with RS256."""

from .proxies import POOL, Proxy, crossway, start_bare

ISSUER, AUDIENCE = "https://idp.example.com/", "api"


def start_crossway(run):
    return crossway(run, f"""
      - jwt:
          issuers:
            - {{ issuer: "{ISSUER}", audiences: [{AUDIENCE}], algorithms: [RS256], jwks_file: "{run.shared}/jwks.json" }}
          forward: {{ claims: {{ sub: X-Consumer }} }}
      - authorize: {{ scopes: {{ any: [orders.read] }} }}""")


def start_haproxy(run):
    config = run.dir / "haproxy.cfg"
    config.write_text(f"""\
global
  nbthread 1
  maxconn 8192
  log stdout format raw local0
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
  http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')
  http-request set-var(txn.iss) http_auth_bearer,jwt_payload_query('$.iss')
  http-request set-var(txn.aud) http_auth_bearer,jwt_payload_query('$.aud')
  http-request set-var(txn.sub) http_auth_bearer,jwt_payload_query('$.sub')
  http-request set-var(txn.scope) http_auth_bearer,jwt_payload_query('$.scope')
  http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str RS256 }}
  http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}
  http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify(txn.alg,"{run.shared}/rsa.pem") 1 }}
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 403 unless {{ var(txn.scope) -m sub orders.read }}
  http-request set-header X-Consumer %[var(txn.sub)]
  http-request set-header X-Request-Id %[uuid()]
  http-request del-header Authorization
  http-response set-header X-Gateway haproxy
  default_backend origin
backend origin
  server one {run.origin} pool-max-conn {POOL}
""")
    return [run.bin["haproxy"], "-db", "-f", str(config)]


def envoy(run, provider):
    host, port = run.origin.rsplit(":", 1)
    config = run.dir / "envoy.yaml"
    kind = "type.googleapis.com/envoy.extensions"
    manager = f"{kind}.filters.network.http_connection_manager.v3.HttpConnectionManager"
    fields = "time: '%START_TIME%', method: '%REQ(:METHOD)%', path: '%REQ(:PATH)%', status: '%RESPONSE_CODE%'"
    config.write_text(f"""\
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {run.port} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {manager}
          stat_prefix: public
          access_log:
          - name: file
            typed_config:
              "@type": {kind}.access_loggers.file.v3.FileAccessLog
              path: {run.dir}/access.log
              log_format: {{ json_format: {{ {fields}, duration: '%DURATION%', upstream: '%UPSTREAM_HOST%', id: '%REQ(X-REQUEST-ID)%' }} }}
          route_config:
            request_headers_to_remove: [authorization]
            response_headers_to_add: [{{ header: {{ key: x-gateway, value: envoy }} }}]
            virtual_hosts: [{{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: origin }} }}] }}]
          http_filters:
          - name: envoy.filters.http.jwt_authn
            typed_config:
              "@type": {kind}.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                idp:
                  issuer: {ISSUER}
                  audiences: [{AUDIENCE}]
                  local_jwks: {{ filename: {run.shared}/jwks.json }}
                  forward: false
                  payload_in_metadata: claims
                  claim_to_headers: [{{ header_name: x-consumer, claim_name: sub }}]
                  {provider}
              rules: [{{ match: {{ prefix: / }}, requires: {{ provider_name: idp }} }}]
          - name: envoy.filters.http.rbac
            typed_config:
              "@type": {kind}.filters.http.rbac.v3.RBAC
              rules:
                policies:
                  readers:
                    permissions: [{{ any: true }}]
                    principals:
                    - metadata:
                        filter: envoy.filters.http.jwt_authn
                        path: [{{ key: claims }}, {{ key: scope }}]
                        value: {{ string_match: {{ contains: orders.read }} }}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {kind}.filters.http.router.v3.Router }}
  clusters:
  - name: origin
    type: STATIC
    circuit_breakers: {{ thresholds: [{{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }}] }}
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}] }}]
""")
    return [run.bin["envoy"], "--concurrency", "1", "--log-level", "warn", "--disable-hot-restart", "-c", str(config)]


def start_envoy(run):
    return envoy(run, "")


def start_envoy_cached(run):
    return envoy(run, "jwt_cache_config: { jwt_cache_size: 10000 }")


DOES = "the token verified, its scope, X-Consumer for the origin, request id, response header, access log"
CHECKED = {
    "crossway": Proxy(
        does=f"{DOES}, metrics; known tokens are kept",
        start=start_crossway,
        ready_path="/readyz",
        response_headers=("X-Gateway", "X-Request-Id"),
        access_log=True,
        refuses=True,
    ),
    "bare": Proxy(does="Pingora 0.9.1, proxying only", start=start_bare),
    "haproxy": Proxy(does=DOES, start=start_haproxy, response_headers=("X-Gateway",), refuses=True),
    "envoy": Proxy(does=DOES, start=start_envoy, response_headers=("X-Gateway",), refuses=True),
    "envoy-cached": Proxy(
        does=f"{DOES}; known tokens are kept", start=start_envoy_cached, response_headers=("X-Gateway",), refuses=True
    ),
}
