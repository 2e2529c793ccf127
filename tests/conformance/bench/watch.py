"""What becomes of a listener's connections, seen from the kernel: when the gateway closes each."""

import threading
import time

ESTABLISHED, CLIENT_CLOSED = "01", "08"  # /proc/net/tcp: TCP_ESTABLISHED, TCP_CLOSE_WAIT
INTERVAL = 0.1  # seconds between two looks


def sockets(port):
    """State of the gateway's end of each connection at this port of 127.0.0.1, and whether the client has yet to take
    something, by the client's port."""
    found = {}
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for line in table:
            _, local, remote, state, queues, *_ = line.split()
            if local == f"0100007F:{port:04X}":
                found[int(remote.partition(":")[2], 16)] = (state, int(queues.partition(":")[0], 16) > 0)
    return found


class Watch(threading.Thread):
    """Looks again and again until it is stopped. `seen` and `cut` hold moments, by the client's port.

    With `owing`, a connection is first seen when the client has something to take: its time to take it begins there.
    """

    def __init__(self, port, owing):
        super().__init__(daemon=True)
        self.port, self.owing, self.seen, self.cut = port, owing, {}, {}
        self.stopped = threading.Event()

    def run(self):
        while not self.stopped.wait(INTERVAL):
            now, states = time.monotonic(), sockets(self.port)
            alive = {port for port, (state, _) in states.items() if state in (ESTABLISHED, CLIENT_CLOSED)}
            for port in alive:
                if states[port][1] or not self.owing:
                    self.seen.setdefault(port, now)
            for port in self.seen.keys() - self.cut.keys() - alive:
                self.cut[port] = now

    def stop(self):
        self.stopped.set()
        self.join()

    def lifetimes(self, leave_out):
        """Seconds from the first sight to the end of each connection, except those of these client ports."""
        now = time.monotonic()
        return [self.cut.get(p, now) - at for p, at in self.seen.items() if p not in leave_out]

    def lingering(self):
        """Ends of connections that the gateway has closed, but the kernel still keeps."""
        gone = {"06", "0A"}  # TIME_WAIT, LISTEN
        alive = {ESTABLISHED, CLIENT_CLOSED}
        return sum(state not in gone | alive for state, _ in sockets(self.port).values())
