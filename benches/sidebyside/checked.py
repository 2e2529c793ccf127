"""The proxies that verify a bearer token: a JWT, signed with RS256."""

from .envoy import KIND, envoy
from .haproxy import haproxy
from .proxies import Proxy, crossway, start_bare

ISSUER, AUDIENCE = "https://idp.example.com/", "api"


def start_crossway(run):
    return crossway(run, f"""
      - jwt:
          issuers:
            - {{ issuer: "{ISSUER}", audiences: [{AUDIENCE}], algorithms: [RS256], jwks_file: "{run.shared}/jwks.json" }}
          forward: {{ claims: {{ sub: X-Consumer }} }}
      - authorize: {{ scopes: {{ any: [orders.read] }} }}""")


def start_haproxy(run):
    claims = ("iss", "aud", "sub", "scope")
    return haproxy(run, [
        "http-request set-var(txn.alg) http_auth_bearer,jwt_header_query('$.alg')",
        *(f"http-request set-var(txn.{name}) http_auth_bearer,jwt_payload_query('$.{name}')" for name in claims),
        "http-request set-var(txn.exp) http_auth_bearer,jwt_payload_query('$.exp','int')",
        "http-request set-var(txn.now) date()",
        "http-request deny deny_status 401 unless { var(txn.alg) -m str RS256 }",
        f"http-request deny deny_status 401 unless {{ var(txn.iss) -m str {ISSUER} }}",
        f"http-request deny deny_status 401 unless {{ var(txn.aud) -m str {AUDIENCE} }}",
        f'http-request deny deny_status 401 unless {{ http_auth_bearer,jwt_verify(txn.alg,"{run.shared}/rsa.pem") 1 }}',
        "http-request deny deny_status 401 if { var(txn.exp),sub(txn.now) -m int lt 0 }",
        "http-request deny deny_status 403 unless { var(txn.scope) -m sub orders.read }",
        "http-request set-header X-Consumer %[var(txn.sub)]",
        "http-request del-header Authorization",
    ])


def checked_by_envoy(run, provider):
    return envoy(run, f"""
        - name: envoy.filters.http.jwt_authn
          typed_config:
            "@type": {KIND}.filters.http.jwt_authn.v3.JwtAuthentication
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
            "@type": {KIND}.filters.http.rbac.v3.RBAC
            rules:
              policies:
                readers:
                  permissions: [{{ any: true }}]
                  principals:
                  - metadata:
                      filter: envoy.filters.http.jwt_authn
                      path: [{{ key: claims }}, {{ key: scope }}]
                      value: {{ string_match: {{ contains: orders.read }} }}
        """, takes_out="authorization")


def start_envoy(run):
    return checked_by_envoy(run, "")


def start_envoy_cached(run):
    return checked_by_envoy(run, "jwt_cache_config: { jwt_cache_size: 10000 }")


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
