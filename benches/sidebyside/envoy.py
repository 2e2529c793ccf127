"""Envoy: one worker, an access log, and the filters of a scenario."""

import textwrap

KIND = "type.googleapis.com/envoy.extensions"


def envoy(run, filters, *, takes_out=""):
    """Envoy with these entries of `http_filters` before its router; `takes_out` is a field kept from the origin."""
    host, port = run.origin.rsplit(":", 1)
    config = run.dir / "envoy.yaml"
    manager = f"{KIND}.filters.network.http_connection_manager.v3.HttpConnectionManager"
    fields = "time: '%START_TIME%', method: '%REQ(:METHOD)%', path: '%REQ(:PATH)%', status: '%RESPONSE_CODE%'"
    config.write_text(f"""\
admin: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {run.admin} }} }} }}
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
              "@type": {KIND}.access_loggers.file.v3.FileAccessLog
              path: {run.dir}/access.log
              log_format: {{ json_format: {{ {fields}, duration: '%DURATION%', upstream: '%UPSTREAM_HOST%', id: '%REQ(X-REQUEST-ID)%' }} }}
          route_config:
            request_headers_to_remove: [{takes_out}]
            response_headers_to_add: [{{ header: {{ key: x-gateway, value: envoy }} }}]
            virtual_hosts: [{{ name: all, domains: ["*"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: origin }} }}] }}]
          http_filters:
{textwrap.indent(textwrap.dedent(filters).strip(), " " * 10)}
          - name: envoy.filters.http.router
            typed_config: {{ "@type": {KIND}.filters.http.router.v3.Router }}
  clusters:
  - name: origin
    type: STATIC
    circuit_breakers: {{ thresholds: [{{ max_connections: 8192, max_pending_requests: 8192, max_requests: 8192 }}] }}
    load_assignment:
      cluster_name: origin
      endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {port} }} }} }} }}] }}]
""")
    return [run.bin["envoy"], "--concurrency", "1", "--log-level", "warn", "--disable-hot-restart", "-c", str(config)]
