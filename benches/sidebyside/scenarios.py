"""What is compared: a name, what the load is given, and the proxies that take part."""

import dataclasses

from .checked import CHECKED
from .limited import LIMITED, OFTEN, SELDOM
from .proxies import PROXIES


@dataclasses.dataclass(frozen=True)
class Scenario:
    """One kind of load on some proxies."""

    proxies: dict
    load: tuple = ()  # arguments of the load
    tls: bool = False
    bearer: str = ""  # "same": each request carries the same token; "new": each another one
    headers: tuple = ()  # fields of each request
    seldom: tuple = ()  # fields of a caller whose limit a few requests reach
    idle: bool = True  # whether idle connections are measured too


SCENARIOS = {
    "proxy": Scenario(PROXIES),
    # HTTP/1.1 over TLS 1.3, ECDSA P-256, on connections that are kept.
    "tls": Scenario(PROXIES, tls=True),
    # The same with a full handshake for each request.
    "handshakes": Scenario(PROXIES, load=("--reconnect",), tls=True),
    # A JWT (RS256) that the proxy has seen before.
    "jwt": Scenario(CHECKED, bearer="same", idle=False),
    # A JWT that it sees for the first time, in each request.
    "new-jwt": Scenario(CHECKED, bearer="new", idle=False),
    # An API key, and a rate limit of its owner that is not reached.
    "limit": Scenario(LIMITED, headers=(OFTEN,), seldom=(SELDOM,), idle=False),
}
