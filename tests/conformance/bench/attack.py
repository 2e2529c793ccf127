"""Slow clients of our own, and a client that must not notice them."""

import socket
import threading
import time

HOST = "Host: judge.example\r\n"
FORM = "Content-Type: application/x-www-form-urlencoded\r\n"
# By kind: what is sent first, and what is sent again each second. `/big` is taken at 5 bytes a second.
KINDS = {
    "headers": (f"GET / HTTP/1.1\r\n{HOST}", "X-Slow: 1\r\n"),
    "headers, then silence": (f"GET / HTTP/1.1\r\n{HOST}", ""),
    "body": (f"POST / HTTP/1.1\r\n{HOST}{FORM}Content-Length: 4096\r\n\r\n", "a"),
    "body, then silence": (f"POST / HTTP/1.1\r\n{HOST}{FORM}Content-Length: 4096\r\n\r\n", ""),
    "chunked body": (f"POST / HTTP/1.1\r\n{HOST}{FORM}Transfer-Encoding: chunked\r\n\r\n", "1\r\na\r\n"),
    "read": (f"GET /big HTTP/1.1\r\n{HOST}\r\n", ""),
    "read, then nothing": (f"GET /big HTTP/1.1\r\n{HOST}\r\n", ""),
}


class Attackers(threading.Thread):
    """So many connections of one kind; `ports` are theirs, and `opened` is when the last of them was open."""

    def __init__(self, port, kind, count):
        super().__init__(daemon=True)
        self.kind, self.stopped = kind, threading.Event()
        self.first, self.drip = (text.encode() for text in KINDS[kind])
        self.connections = [self.connect(port) for _ in range(count)]
        self.ports = {connection.getsockname()[1] for connection in self.connections}
        self.opened = time.monotonic()

    def connect(self, port):
        connection = socket.socket()
        if self.kind.startswith("read"):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.settimeout(5)
        connection.connect(("127.0.0.1", port))
        connection.sendall(self.first)
        connection.setblocking(False)
        return connection

    def run(self):
        while not self.stopped.wait(1):
            for connection in self.connections:
                self.move(connection)

    def move(self, connection):
        try:
            if self.drip:
                connection.send(self.drip)
            if self.kind == "read":
                connection.recv(5)
        except OSError:
            pass  # closed by the gateway: the watch has seen it

    def stop(self):
        self.stopped.set()
        self.join()
        for connection in self.connections:
            connection.close()


class Probe(threading.Thread):
    """A new connection and a GET every 200 ms. `failures` are the moments and reasons of those that failed."""

    LONGEST = 3  # seconds; as slowhttptest's own probe

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.stopped = port, threading.Event()
        self.count, self.failures, self.slowest = 0, [], 0.0
        self.ports = set()

    def run(self):
        while not self.stopped.wait(0.2):
            begun = time.monotonic()
            self.count += 1
            try:
                self.ask()
            except (OSError, ValueError) as error:
                self.failures.append((begun, str(error) or type(error).__name__))
            self.slowest = max(self.slowest, time.monotonic() - begun)

    def ask(self):
        with socket.create_connection(("127.0.0.1", self.port), self.LONGEST) as connection:
            self.ports.add(connection.getsockname()[1])
            connection.settimeout(self.LONGEST)
            connection.sendall(f"GET /probe HTTP/1.1\r\n{HOST}Connection: close\r\n\r\n".encode())
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
        if not (answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"served\n")):
            raise ValueError(f"answered {answer[:80]}")

    def stop(self):
        self.stopped.set()
        self.join()

    def seconds_failed(self):
        return len({int(at) for at, _ in self.failures})
