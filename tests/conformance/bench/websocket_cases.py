"""Both ends of the judge `websockets`, run with the package of that name.

`websocket_cases.py serve PORT` echoes. `websocket_cases.py observe PORT FILE` writes what each case showed.
"""

import asyncio
import hashlib
import json
import sys

from websockets.asyncio.client import connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

MIB = 1 << 20
SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, MIB, 16 * MIB]
CLOSE_CODES = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 4000, 4999]
HANDSHAKES = 200
PATIENCE = 30  # seconds
HANDSHAKE = (
    "GET / HTTP/1.1\r\nHost: judge.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def echo(socket):
    """Echoes; `close CODE`, `ping`, `drop` and `burst` make it do something of its own."""
    async for message in socket:
        words = message.split() if isinstance(message, str) and len(message) < 100 else []
        match words:
            case ["close", code]:
                await socket.close(int(code), "as asked")
            case ["ping"]:
                await (await socket.ping(b"are you there"))
                await socket.send("ponged")
            case ["drop"]:
                socket.transport.abort()
            case ["burst"]:
                for at in range(1000):
                    await socket.send(f"{at}")
            case _:
                await socket.send(message)


def fingerprint(message):
    data = message.encode() if isinstance(message, str) else message
    return f"{type(message).__name__} {len(data)} {hashlib.sha256(data).hexdigest()[:16]}"


async def ending(socket):
    """What comes until the end, and how the end came."""
    try:
        seen = [fingerprint(message) async for message in socket]
    except ConnectionClosed:
        seen = []
    return [*seen, f"closed {socket.close_code} {socket.close_reason}"]


class Client:
    """One case at a time, each on its own connection."""

    def __init__(self, port):
        self.port = port

    def open(self, **settings):
        return connect(f"ws://127.0.0.1:{self.port}/", max_size=None, ping_interval=None, **settings)

    async def echoed(self, message, **settings):
        async with self.open(**settings) as socket:
            await socket.send(message)
            return fingerprint(await socket.recv())

    async def asked(self, *messages):
        async with self.open() as socket:
            for message in messages:
                await socket.send(message)
            return await ending(socket)

    async def closed_with(self, code):
        socket = await self.open()
        await socket.close(code, "bye")
        return f"closed {socket.close_code} {socket.close_reason}"

    async def pings_between(self):
        async with self.open() as socket:
            async def fragments():
                for at in range(5):
                    yield f"part {at};"
                    await (await socket.ping(f"ping {at}".encode()))

            await socket.send(fragments())
            return fingerprint(await socket.recv())

    async def pinged(self):
        async with self.open() as socket:
            await socket.send("ping")
            return fingerprint(await socket.recv())

    async def both_ways(self):
        """Many messages sent while their echoes are read."""
        async with self.open() as socket:
            async def send():
                for at in range(500):
                    await socket.send(f"{at} " + "x" * 4096)

            sending = asyncio.create_task(send())
            seen = [await socket.recv() for _ in range(500)]
            await sending
            return fingerprint("".join(seen))

    async def burst(self):
        async with self.open() as socket:
            await socket.send("burst")
            return fingerprint("".join([await socket.recv() for _ in range(1000)]))

    async def raw(self, data, piece=None, half_close=False):
        """What comes back for these bytes after a handshake, in hexadecimal, and how it ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(HANDSHAKE.encode())
            await reader.readuntil(b"\r\n\r\n")
            for at in range(0, len(data), piece or len(data)):
                writer.write(data[at : at + (piece or len(data))])
                await writer.drain()
                await asyncio.sleep(0)
            if half_close:
                writer.write_eof()
            return f"{(await reader.read()).hex()} end"
        except ConnectionError as error:
            return type(error).__name__
        finally:
            writer.close()

    async def handshakes(self):
        """How many of a row of short connections came to nothing: answers come as fast as they can."""
        failed = 0
        for _ in range(HANDSHAKES):
            failed += await self.raw(CLOSE) != "880203e8 end"
        return f"{failed} of {HANDSHAKES} failed"


def frame(opcode, data, **bits):
    return Frame(opcode, data, **bits).serialize(mask=True)


def with_first_byte(byte, data=b"x"):
    """A masked frame with any bits set."""
    return bytes([byte]) + frame(Opcode.TEXT, data)[1:]


CLOSE = frame(Opcode.CLOSE, b"\x03\xe8")
RAW = {
    "reserved bit 1": with_first_byte(0xC1),
    "reserved bit 2": with_first_byte(0xA1),
    "reserved bit 3": with_first_byte(0x91),
    "reserved opcode 3": with_first_byte(0x83),
    "reserved opcode 11": with_first_byte(0x8B),
    "a frame without a mask": Frame(Opcode.TEXT, b"hello").serialize(mask=False),
    "a fragmented ping": with_first_byte(0x09),
    "a ping that is too long": with_first_byte(0x89, b"x" * 126),
    "a continuation of nothing": frame(Opcode.CONT, b"x"),
    "a text within a fragmented text": frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.TEXT, b"b"),
    "invalid UTF-8": frame(Opcode.TEXT, b"\xce\xba\xff"),
    "invalid UTF-8 over two frames": frame(Opcode.TEXT, b"\xf4", fin=False) + frame(Opcode.CONT, b"\x90\x80\x80"),
    "a close without a code": frame(Opcode.CLOSE, b""),
    "a close with half a code": frame(Opcode.CLOSE, b"\x03"),
    "a close with code 999": frame(Opcode.CLOSE, b"\x03\xe7"),
    "a close with code 1005": frame(Opcode.CLOSE, b"\x03\xed"),
    "a close with invalid UTF-8": frame(Opcode.CLOSE, b"\x03\xe8\xff"),
    "a close, then a text": CLOSE + frame(Opcode.TEXT, b"late"),
    "a ping and a close at once": frame(Opcode.PING, b"p") + CLOSE,
    "HTTP in place of frames": b"GET / HTTP/1.1\r\nHost: judge.example\r\n\r\n",
}


def cases(client):
    for size in SIZES:
        yield f"text of {size} bytes", client.echoed("\u00e4" * (size // 2) + "x" * (size % 2), compression=None)
        yield f"binary of {size} bytes", client.echoed(bytes(size), compression=None)
        yield f"compressed text of {size} bytes", client.echoed("abc " * (size // 4))
        yield f"fragmented binary of {size} bytes", client.echoed([bytes(size // 4)] * 4, compression=None)
    yield "pings between fragments", client.pings_between()
    yield "a ping of the server", client.pinged()
    yield "500 messages while their echoes come", client.both_ways()
    yield "1000 messages of the server", client.burst()
    for code in CLOSE_CODES:
        yield f"the client closes with {code}", client.closed_with(code)
        yield f"the server closes with {code}", client.asked(f"close {code}")
    yield "the server drops the connection", client.asked("drop")
    yield "an echo, then the server drops the connection", client.asked("hello", "drop")
    for name, data in RAW.items():
        yield name, client.raw(data)
        yield f"{name}, byte by byte", client.raw(data, piece=1)
    yield "the client ends its side", client.raw(frame(Opcode.TEXT, b"last words"), half_close=True)
    yield f"{HANDSHAKES} connections in a row", client.handshakes()


async def observe(port, file):
    seen = {}
    for name, case in cases(Client(port)):
        try:
            seen[name] = await asyncio.wait_for(case, PATIENCE)
        except Exception as error:  # whatever it is, it is what the case showed
            seen[name] = f"failed: {type(error).__name__}: {error}"
    with open(file, "w", encoding="utf-8") as report:
        json.dump(seen, report, indent=1)


async def main():
    mode, port, *rest = sys.argv[1:]
    if mode == "serve":
        async with serve(echo, "127.0.0.1", int(port), max_size=None, ping_interval=None) as server:
            await server.serve_forever()
    else:
        await observe(int(port), *rest)


asyncio.run(main())
