"""A gRPC server for the cases: echoes without generated code, beside the packages' health and reflection services.

Prints its port, then serves until SIGTERM, which lets calls finish for ten seconds.
"""

import signal
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

GRACE = 10
cancelled = set()
cancelled_lock = threading.Lock()


def echo_metadata(context):
    """Sends what is named x-echo-* back in the header and x-trail-* in the trailers."""
    sent = context.invocation_metadata()
    context.send_initial_metadata([(key, value) for key, value in sent if key.startswith("x-echo-")])
    context.set_trailing_metadata([(key, value) for key, value in sent if key.startswith("x-trail-")])


def unary(request, context):
    echo_metadata(context)
    return request


def server_stream(request, context):
    """The request: how many messages, and the milliseconds between them."""
    count, pause = (int(part) for part in request.split())
    for at in range(count):
        yield str(at).encode()
        time.sleep(pause / 1000)


def client_stream(requests, context):
    sizes = [len(request) for request in requests]
    return f"{len(sizes)} {sum(sizes)}".encode()


def bidi(requests, context):
    echo_metadata(context)
    for request in requests:
        yield request


def status(request, context):
    """The request: a code and a message."""
    code, _, message = request.decode().partition(" ")
    codes = {known.value[0]: known for known in grpc.StatusCode}
    context.set_trailing_metadata([("x-detail-bin", bytes(range(256)))])
    context.abort(codes[int(code)], message)


def wait(request, context):
    """One message, then nothing until the caller has gone; the request names the call."""
    gone = threading.Event()

    def note():
        with cancelled_lock:
            cancelled.add(request)
        gone.set()

    if not context.add_callback(note):
        note()
    yield b"begun"
    gone.wait(60)


def was_cancelled(request, context):
    with cancelled_lock:
        return b"yes" if request in cancelled else b"no"


def time_left(request, context):
    left = context.time_remaining()
    return b"none" if left is None else str(left).encode()


def handlers():
    return grpc.method_handlers_generic_handler(
        "echo.Echo",
        {
            "Unary": grpc.unary_unary_rpc_method_handler(unary),
            "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
            "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
            "Bidi": grpc.stream_stream_rpc_method_handler(bidi),
            "Status": grpc.unary_unary_rpc_method_handler(status),
            "Wait": grpc.unary_stream_rpc_method_handler(wait),
            "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
            "TimeLeft": grpc.unary_unary_rpc_method_handler(time_left),
        },
    )


def main():
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=128),
        options=[
            ("grpc.so_reuseport", 0),
            # The gateway asks its connections for a sign of life, and so does the client of a direct run.
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 100),
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    server.add_generic_rpc_handlers((handlers(),))
    checks = health.HealthServicer()
    checks.set("echo.Echo", health_pb2.HealthCheckResponse.SERVING)
    checks.set("other", health_pb2.HealthCheckResponse.NOT_SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = ("echo.Echo", health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    server.stop(GRACE).wait()
    sys.exit(0)


if __name__ == "__main__":
    main()
