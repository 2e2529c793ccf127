"""What a gRPC client expects. Each case takes a channel to the place under test, and raises when it is disappointed."""

import threading
import time
import uuid
from concurrent import futures

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

PATIENCE = 20
LARGE = 3 << 20
TOO_LARGE = 5 << 20


def expect(found, wanted, what=""):
    if found != wanted:
        raise AssertionError(f"{what} {found!r}, not {wanted!r}".strip())


def error_of(call):
    """Runs a call that must fail."""
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def ask(channel, method, request=b"", **options):
    return channel.unary_unary(f"/echo.Echo/{method}")(request, timeout=options.pop("timeout", PATIENCE), **options)


def unary(channel):
    expect(ask(channel, "Unary", b"hello"), b"hello")
    expect(ask(channel, "Unary", b""), b"", "an empty message")


def server_stream(channel):
    answers = channel.unary_stream("/echo.Echo/ServerStream")(b"500 0", timeout=PATIENCE)
    expect(list(answers), [str(at).encode() for at in range(500)])


def server_stream_comes_as_it_is_sent(channel):
    answers = channel.unary_stream("/echo.Echo/ServerStream")(b"3 400", timeout=PATIENCE)
    begun = time.monotonic()
    next(answers)
    first = time.monotonic() - begun
    expect(len(list(answers)), 2)
    if first > 0.35:
        raise AssertionError(f"the first message took {first:.2f} s")


def client_stream(channel):
    requests = (bytes(at) for at in range(300))
    expect(channel.stream_unary("/echo.Echo/ClientStream")(requests, timeout=PATIENCE), b"300 44850")


def bidi_stream(channel):
    """In turn: the next message goes out when the last one is back."""
    turn = threading.Semaphore(1)

    def requests():
        for at in range(200):
            if not turn.acquire(timeout=PATIENCE):
                return
            yield str(at).encode()

    answers = []
    for answer in channel.stream_stream("/echo.Echo/Bidi")(requests(), timeout=PATIENCE):
        answers.append(answer)
        turn.release()
    expect(answers, [str(at).encode() for at in range(200)])


def bidi_stream_at_full_speed(channel):
    requests = (b"x" * 1000 for _ in range(2000))
    answers = channel.stream_stream("/echo.Echo/Bidi")(requests, timeout=PATIENCE)
    expect(sum(len(answer) for answer in answers), 2_000_000)


def bidi_stream_read_late(channel):
    """Neither direction may wait for the other: 30 MB each way, read when everything has long been full."""
    requests = (b"x" * 10_000 for _ in range(3000))
    answers = channel.stream_stream("/echo.Echo/Bidi")(requests, timeout=PATIENCE)
    time.sleep(1)
    expect(sum(len(answer) for answer in answers), 30_000_000)


def metadata(channel):
    sent = (("x-echo-text", "one"), ("x-echo-bytes-bin", b"\0\1\xff"), ("x-trail-text", "two"), ("x-trail-bin", b"\xfe"))
    _, call = channel.unary_unary("/echo.Echo/Unary").with_call(b"", metadata=sent, timeout=PATIENCE)
    initial, trailing = dict(call.initial_metadata()), dict(call.trailing_metadata())
    expect({key: initial.get(key) for key in ("x-echo-text", "x-echo-bytes-bin")}, dict(sent[:2]), "initial")
    expect({key: trailing.get(key) for key in ("x-trail-text", "x-trail-bin")}, dict(sent[2:]), "trailing")


def statuses_and_messages(channel):
    for code in (code for code in grpc.StatusCode if code is not grpc.StatusCode.OK):
        for message in ("", "plain", "50 % of größe 日本\nnext"):
            error = error_of(lambda: ask(channel, "Status", f"{code.value[0]} {message}".encode()))
            expect((error.code(), error.details()), (code, message))
            expect(dict(error.trailing_metadata()).get("x-detail-bin"), bytes(range(256)), "trailing")


def unknown_method(channel):
    expect(error_of(lambda: ask(channel, "NoSuchMethod")).code(), grpc.StatusCode.UNIMPLEMENTED)


def deadline(channel):
    begun = time.monotonic()
    answers = channel.unary_stream("/echo.Echo/Wait")(uuid.uuid4().bytes, timeout=0.5)
    expect(error_of(lambda: list(answers)).code(), grpc.StatusCode.DEADLINE_EXCEEDED)
    if time.monotonic() - begun > 5:
        raise AssertionError("it took too long")


def deadline_reaches_the_server(channel):
    left = float(ask(channel, "TimeLeft", timeout=5))
    if not 0 < left < 5.5:  # clients and servers round it up
        raise AssertionError(f"the server has {left} s")


def server_sees_the_end_of(channel, name):
    until = time.monotonic() + PATIENCE
    while ask(channel, "WasCancelled", name) != b"yes":
        if time.monotonic() > until:
            raise AssertionError("the server has not seen it")


def cancel(channel):
    name = uuid.uuid4().bytes
    answers = channel.unary_stream("/echo.Echo/Wait")(name, timeout=PATIENCE)
    expect(next(answers), b"begun")
    expect(ask(channel, "WasCancelled", name), b"no")
    answers.cancel()
    expect(error_of(lambda: next(answers)).code(), grpc.StatusCode.CANCELLED)
    server_sees_the_end_of(channel, name)


def large_message(channel):
    message = bytes(LARGE)
    expect(len(ask(channel, "Unary", message)), LARGE)


def message_over_the_servers_limit(channel):
    error = error_of(lambda: ask(channel, "Unary", bytes(TOO_LARGE)))
    expect(error.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
    expect(ask(channel, "Unary", b"after"), b"after")


def health_check(channel):
    check = health_pb2_grpc.HealthStub(channel).Check
    for service, wanted in (("", "SERVING"), ("echo.Echo", "SERVING"), ("other", "NOT_SERVING")):
        answer = check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
        expect(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status), wanted, service)
    unknown = error_of(lambda: check(health_pb2.HealthCheckRequest(service="none"), timeout=PATIENCE))
    expect(unknown.code(), grpc.StatusCode.NOT_FOUND)


def reflection_list(channel):
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    answers = list(stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE))
    names = {service.name for answer in answers for service in answer.list_services_response.service}
    expect(names >= {"echo.Echo", "grpc.health.v1.Health"}, True, str(names))


def keep_alive_pings(channel):
    """The channel asks every half second whether the connection lives (see `run.py`), in a stream that pauses."""
    answers = channel.unary_stream("/echo.Echo/ServerStream")(b"3 1500", timeout=PATIENCE)
    expect(len(list(answers)), 3)


def hundred_calls_at_once(channel):
    def one(at):
        text = str(at).encode()
        return ask(channel, "Unary", text) == text

    with futures.ThreadPoolExecutor(max_workers=100) as threads:
        expect(sum(threads.map(one, range(100))), 100)


ALL = [
    unary,
    server_stream,
    server_stream_comes_as_it_is_sent,
    client_stream,
    bidi_stream,
    bidi_stream_at_full_speed,
    bidi_stream_read_late,
    metadata,
    statuses_and_messages,
    unknown_method,
    deadline,
    deadline_reaches_the_server,
    cancel,
    large_message,
    message_over_the_servers_limit,
    health_check,
    reflection_list,
    keep_alive_pings,
    hundred_calls_at_once,
]


def no_route(channel):
    error = error_of(lambda: channel.unary_unary("/nowhere.Nowhere/Method")(b"", timeout=PATIENCE))
    expect(error.code(), grpc.StatusCode.UNIMPLEMENTED)


def no_key(channel):
    error = error_of(lambda: channel.unary_unary("/keyed.Keyed/Method")(b"", timeout=PATIENCE))
    expect(error.code(), grpc.StatusCode.UNAUTHENTICATED)
    expect(bool(error.details()), True, "a message")


def no_server(channel):
    error = error_of(lambda: channel.unary_unary("/gone.Gone/Method")(b"", timeout=PATIENCE))
    expect(error.code(), grpc.StatusCode.UNAVAILABLE)


# What only a gateway does.
GATEWAY = [no_route, no_key, no_server]
