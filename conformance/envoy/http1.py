"""HTTP/1.1 by hand, on both ends of Envoy: a client that decides where its body is cut, and model
servers that do what a request header asks. Trailers, cut bodies and aborts are first-class here,
as in no HTTP library.
"""

import asyncio
import contextlib
import dataclasses
import json

LINE_MAX = 1 << 20


@dataclasses.dataclass
class Message:
    first: str  # request or status line
    headers: dict  # names in lower case, the last of a name
    body: bytes = b""
    trailers: dict = dataclasses.field(default_factory=dict)
    chunks: list = dataclasses.field(default_factory=list)

    @property
    def status(self):
        return int(self.first.split()[1])

    def json(self):
        return json.loads(self.body)


class Broken(Exception):
    """The peer ended before its message did; says how much of it had come."""


async def read_fields(reader):
    fields = {}
    while (line := (await reader.readuntil(b"\n")).strip()):
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    return fields


async def read_head(reader):
    first = (await reader.readuntil(b"\n")).decode("latin-1").strip()
    return Message(first, await read_fields(reader))


async def read_body(reader, message):
    """Without a length or chunks there is no body: neither end here closes to say the end."""
    if message.headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\n"), 16):
            message.chunks.append(await reader.readexactly(size))
            await reader.readexactly(2)
        message.trailers = await read_fields(reader)
        message.body = b"".join(message.chunks)
    else:
        message.body = await reader.readexactly(int(message.headers.get("content-length", 0)))


def head_of(first, headers):
    return "".join([first, "\r\n", *(f"{k}: {v}\r\n" for k, v in headers.items()), "\r\n"]).encode()


def chunk(data):
    return b"%x\r\n%s\r\n" % (len(data), data)


def end_of_chunks(trailers):
    return b"0\r\n" + head_of("", trailers)[2:]


@contextlib.asynccontextmanager
async def connected(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LINE_MAX)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(port, reader, writer, body=b"", headers=None, method="POST",
                   path="/v1/chat/completions", parts=None, trailers=None):
    """One request over an open connection. `parts` or `trailers` send it in chunks, each written
    by itself; only then may `body` be None, which sends none."""
    fields = {"host": f"127.0.0.1:{port}", "content-type": "application/json"}
    chunked = parts is not None or trailers is not None
    if chunked:
        fields["transfer-encoding"] = "chunked"
    elif body is not None:
        fields["content-length"] = len(body)
    if trailers:
        fields["te"] = "trailers"
    writer.write(head_of(f"{method} {path} HTTP/1.1", fields | (headers or {})))
    if chunked:
        for part in [body] if parts is None else parts:
            await writer.drain()
            writer.write(chunk(part))
        writer.write(end_of_chunks(trailers or {}))
    elif body:
        writer.write(body)
    try:
        reply = await read_head(reader)
        while reply.status == 100:
            reply = await read_head(reader)
        if method != "HEAD":
            await read_body(reader, reply)
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Broken(f"the connection ended inside the reply: {error}") from error
    return reply


async def ask(port, body=b"", **how):
    async with connected(port) as (reader, writer):
        return await exchange(port, reader, writer, body, **how)


class ModelServer:
    """Answers /metrics as vLLM does, and every other request as its header x-do says: echo (the
    default), sse, hold (one event, then the rest once `release` is set), die (inside the reply),
    trailers, a status, slow."""

    def __init__(self, name, port):
        self.name = name
        self.port = port
        self.waiting = 0  # what /metrics says
        self.refuses_with = 0  # a status; unless 0 the answer to every request
        self.requests = []
        self.cancelled = 0  # requests whose other end went away
        self.release = asyncio.Event()
        self.server = None

    async def open(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", self.port,
                                                 limit=LINE_MAX, backlog=4096)
        self.writers = set()

    async def close(self):
        """As a process that dies: connections go, too."""
        self.server.close()
        for writer in list(self.writers):
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            while True:
                request = await read_head(reader)
                await read_body(reader, request)
                await self.answer(request, reader, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.transport.abort()

    async def answer(self, request, reader, writer):
        if request.first.startswith("GET /metrics"):
            return self.reply(writer, 200, (
                "# TYPE vllm:num_requests_waiting gauge\n"
                f"vllm:num_requests_waiting {self.waiting}\n"
                "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running 0\n"
                "# TYPE vllm:kv_cache_usage_perc gauge\nvllm:kv_cache_usage_perc 0\n").encode(),
                "text/plain")
        self.requests.append(request)
        do = str(self.refuses_with or request.headers.get("x-do", "echo"))
        if do.isdigit():
            self.reply(writer, int(do), b'{"error":{"message":"asked for"}}')
        elif do == "trailers":
            writer.write(head_of("HTTP/1.1 200 OK", {"transfer-encoding": "chunked",
                                                     "trailer": "x-sum"}))
            writer.write(chunk(request.body) + end_of_chunks({"x-sum": len(request.body)}))
        elif do in ("sse", "hold", "die"):
            await self.stream(do, request, reader, writer)
        else:
            if do == "slow":
                await asyncio.sleep(float(request.headers["x-seconds"]))
            self.reply(writer, 200, request.body)
        return None

    def reply(self, writer, status, body, kind="application/json"):
        writer.write(head_of(f"HTTP/1.1 {status} Status", {
            "content-type": kind, "content-length": len(body), "x-served-by": self.name}) + body)

    async def stream(self, do, request, reader, writer):
        writer.write(head_of("HTTP/1.1 200 OK", {"content-type": "text/event-stream",
                                                 "transfer-encoding": "chunked",
                                                 "x-served-by": self.name}))
        events = events_of(request.body, int(request.headers.get("x-count", 3)))
        writer.write(chunk(events[0]))
        await writer.drain()
        if do == "die":
            await asyncio.sleep(0.1)  # or the reset would overtake what was written
            raise ConnectionError
        if do == "hold":
            await self.hold(reader)
        pause = float(request.headers.get("x-pause", 0))
        for event in events[1:]:
            await asyncio.sleep(pause)
            # Two writes: no event lies in one piece.
            writer.write(chunk(event[:25]))
            await writer.drain()
            writer.write(chunk(event[25:]))
        writer.write(end_of_chunks({}))

    async def hold(self, reader):
        gone = asyncio.ensure_future(reader.read(1))
        released = asyncio.ensure_future(self.release.wait())
        await asyncio.wait([gone, released], return_when=asyncio.FIRST_COMPLETED)
        released.cancel()
        if gone.done():
            self.cancelled += 1
            raise ConnectionError
        # The connection must not be read by two: it ends with this reply.
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)


def events_of(body, count):
    """What a model server streams for a request: `count` pieces of text, usage, the end."""
    model = json.loads(body)["model"]
    events = [{"id": "1", "object": "chat.completion.chunk", "model": model, "choices": [
        {"index": 0, "delta": {"content": f"token {i} "}, "finish_reason": None}]}
        for i in range(count)]
    events.append({"id": "1", "object": "chat.completion.chunk", "model": model, "choices": [],
                   "usage": {"prompt_tokens": 7, "completion_tokens": count,
                             "total_tokens": 7 + count}})
    return [*(b"data: " + json.dumps(e, separators=(",", ":")).encode() + b"\n\n"
              for e in events), b"data: [DONE]\n\n"]
