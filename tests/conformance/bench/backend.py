"""A server over HTTP/1.1 to stand behind the gateway: `backend.py PORT`.

`GET /big` answers 512 KiB, more than the kernel takes for a client that does not read where packets are small;
everything else is read to its end and answered with a small text.
"""

import asyncio
import re
import sys

BIG = 512 << 10
PIECE = b"x" * 65536
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def read_body(reader, head):
    if found := LENGTH.search(head):
        left = int(found[1])
        while left > 0 and (piece := await reader.read(min(left, 65536))):
            left -= len(piece)
    elif b"\r\ntransfer-encoding:" in head.lower():
        while int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            await reader.readuntil(b"\r\n")
        await reader.readuntil(b"\r\n")


async def answer(reader, writer):
    head = await reader.readuntil(b"\r\n\r\n")
    await read_body(reader, head)
    if not head.startswith(b"GET /big"):
        text = b"" if head.startswith(b"HEAD ") else b"served\n"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 7\r\n\r\n" + text)
        return await writer.drain()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % BIG)
    for _ in range(BIG // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()


async def serve(reader, writer):
    try:
        while True:
            await answer(reader, writer)
    except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    async with server:
        await server.serve_forever()


asyncio.run(main())
