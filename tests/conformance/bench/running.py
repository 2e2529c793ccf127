"""The gateway as a process, and its configuration."""

import http.client
import json
import socket
import subprocess

from bench.processes import Process, until

TOKEN = "token-of-the-judges-0123"


def listener(name="public", **settings):
    return {"name": name, "address": "127.0.0.1:0", **settings}


def passing_to(port, **settings):
    """Routes and upstreams that pass every request to this port of 127.0.0.1."""
    route = {"name": "all", "match": {"path": "/{rest...}"}, "auth": "none", "upstream": "backend", **settings}
    return {"upstreams": {"backend": {"endpoints": [{"address": f"127.0.0.1:{port}"}]}}, "routes": [route]}


class Gateway(Process):
    """A running gateway."""

    def __init__(self, binary, config, folder, log):
        folder.mkdir()
        self.socket = folder / "admin.sock"
        config = {**config, "admin": {"address": f"unix:{self.socket}", "token": TOKEN}}
        file = folder / "gateway.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        super().__init__([str(binary), "run", "-c", str(file)], log, folder)

    def wait_ready(self):
        until(lambda: self.alive() and self.admin("/readyz")[0] == 200, f"the gateway is ready, see {self.log}")

    def admin(self, path):
        """Status and body of a GET; status 0 where nobody listens yet."""
        connection = http.client.HTTPConnection("localhost", timeout=10)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.sock.connect(str(self.socket))
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        except OSError:
            return 0, b""
        finally:
            connection.close()

    def port(self, name="public"):
        """Where a listener listens."""
        status = json.loads(self.admin("/api/status")[1])
        local = next(entry["local"] for entry in status["listeners"] if entry["name"] == name)
        return int(local.rpartition(":")[2])


def tls_settings(bench):
    """`tls` of a listener with a new self-signed certificate, or `None` where this gateway does not know `tls`."""
    cert, key = bench.scratch / "cert.pem", bench.scratch / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
         "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    settings = {"certificates": [{"cert": str(cert), "key": f"${{file:{key}}}"}]}
    file = bench.scratch / "tls.yaml"
    config = {"listeners": [listener(tls=settings)], **passing_to(9)}
    file.write_text(json.dumps(config))
    checked = subprocess.run([bench.binary, "check", file], capture_output=True, text=True)
    printed = checked.stdout + checked.stderr
    if checked.returncode == 0:
        return settings
    if "unknown key `tls`" in printed:
        return None
    raise RuntimeError(f"a listener with tls is refused: {printed}")
