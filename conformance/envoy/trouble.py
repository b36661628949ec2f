"""Cases of one configuration each: limits, deaths, restarts, reloads, certificates, metadata."""

import asyncio
import contextlib
import signal
import ssl
import subprocess
import time

from http1 import Broken, connected, events_of, exchange, head_of, read_body, read_head
from matrix import PASSED_ON, chat
from stand import CONFIG, LLMD, PORTS, Process, until

STREAMS = 2000


class Load:
    """Clients that ask without a pause until the block ends; every reply is kept by status."""

    def __init__(self, at, clients=8, headers=None):
        self.at = at
        self.clients = clients
        self.headers = headers or {}
        self.statuses = {}
        self.broken = []
        self.ended = False

    async def __aenter__(self):
        self.tasks = [asyncio.ensure_future(self.client()) for _ in range(self.clients)]
        await self.more(50)
        return self

    async def __aexit__(self, *_):
        self.ended = True
        await asyncio.gather(*self.tasks)

    async def client(self):
        while not self.ended:
            with contextlib.suppress(ConnectionError):
                async with connected(self.at.port) as (reader, writer):
                    await self.ask_on(reader, writer)

    async def ask_on(self, reader, writer):
        body = chat()
        while not self.ended:
            try:
                reply = await exchange(self.at.port, reader, writer, body, headers=self.headers)
            except Broken as error:
                self.broken.append(str(error))
                return
            key = reply.status if reply.status != 200 or reply.body == body else "changed"
            self.statuses[key] = self.statuses.get(key, 0) + 1
            if reply.status != 200:
                self.last_failure = reply

    def total(self):
        return sum(self.statuses.values())

    async def more(self, count):
        """Waits until so many more were answered."""
        wanted = self.total() + count
        while self.total() < wanted:
            await asyncio.sleep(0.01)

    def assert_none_failed(self):
        failed = {status: n for status, n in self.statuses.items() if status != 200}
        assert not failed and not self.broken, (failed, self.broken[:3],
                                                getattr(self, "last_failure", None))


@contextlib.asynccontextmanager
async def held_streams(at, count):
    """Streaming replies whose model servers wait, each with its first event read."""
    for server in at.servers:
        server.release.clear()
    body = chat(stream=True)
    head = head_of("POST /v1/chat/completions HTTP/1.1", {
        "host": "x", "content-type": "application/json", "x-do": "hold",
        "content-length": len(body)})
    async with contextlib.AsyncExitStack() as stack:
        at_once = asyncio.Semaphore(64)
        replies = []

        async def begin():
            async with at_once:
                reader, writer = await stack.enter_async_context(connected(at.port))
                writer.write(head + body)
                reply = await read_head(reader)
                assert reply.status == 200, reply
                replies.append((reader, reply))
        await asyncio.gather(*(begin() for _ in range(count)))

        async def finish():
            for server in at.servers:
                server.release.set()
            await asyncio.gather(*(read_body(*pair) for pair in replies))
            expected = b"".join(events_of(body, 3))
            assert all(reply.body == expected for _, reply in replies)
        yield finish


# ---- many, limits ------------------------------------------------------------------------------


async def test_2000_streams_at_once(at):
    async with held_streams(at, STREAMS) as finish:
        await until("all are in flight", lambda: sum(
            endpoint["in_flight"] for endpoint in at.endpoints()) == STREAMS)
        assert at.metric("llm_d_epp_request_running") == STREAMS
        # Others still get through.
        assert (await at.ask(chat())).status == 200
        await finish()
    await at.settle()


async def test_2000_clients_that_leave_at_once(at):
    async with held_streams(at, STREAMS):
        pass
    await at.settle()
    assert (await at.ask(chat())).status == 200


async def test_a_circuit_breaker_opens(at):
    """Envoy allows four streams to the picker: the fifth request fails there, and no trace is
    left when all is over."""
    async with held_streams(at, 4) as finish:
        reply = await at.ask(chat())
        assert reply.status == 500, reply
        assert "reset reason: overflow" in at.envoy.output()
        await finish()
    await at.settle()
    assert (await at.ask(chat())).status == 200


async def test_a_reply_outlasts_the_stream_timeout(at):
    """grpc_service.timeout (here 1 s) bounds no stream."""
    reply = await at.ask(chat(stream=True), headers={"x-do": "sse", "x-pause": "0.5"})
    assert reply.body == b"".join(events_of(chat(stream=True), 3)), reply
    assert (await at.ask(chat(), headers={"x-do": "slow", "x-seconds": "1.5"})).status == 200


async def test_http2_clients(at):
    """Many streams on few connections, bodies that need several DATA frames."""
    body = at.folder / "body.json"
    body.write_bytes(chat(40_000))
    made = await asyncio.create_subprocess_exec(
        "h2load", "-n", "600", "-c", "2", "-m", "50", "-d", str(body), "-H",
        "content-type: application/json", f"http://127.0.0.1:{at.port}/v1/chat/completions",
        stdout=asyncio.subprocess.PIPE)
    output = (await made.communicate())[0].decode()
    assert "status codes: 600 2xx, 0 3xx, 0 4xx, 0 5xx" in output, output
    assert all(request.body == body.read_bytes() for s in at.servers for request in s.requests)
    await at.settle()


# ---- endpoints that die ------------------------------------------------------------------------


async def test_an_endpoint_dies(at):
    """Named alone, with nothing to fall back on: the requests until it is ejected fail, the
    others do not."""
    await at.prefer(at.servers[0])
    await at.servers[0].close()
    statuses = [(await at.ask(chat())).status for _ in range(60)]
    failed = [status for status in statuses if status != 200]
    print(f"of 60 requests {len(failed)} failed: {sorted(set(failed))}")
    assert set(failed) <= {503}, failed
    assert statuses[-30:] == [200] * 30, f"still chosen: {statuses}"
    await at.settle()


async def test_a_dead_first_endpoint_is_passed(at):
    await at.prefer(*at.servers)
    await at.servers[0].close()
    for _ in range(20):
        reply = await at.ask(chat())
        assert (reply.status, reply.headers["x-served-by"][0]) == (200, "m"), reply
        assert reply.headers["x-served-by"] != "m0"
    assert at.envoy_stat("cluster.model_servers.upstream_rq_retry_success") >= 1


async def test_the_walk_keeps_the_order_and_the_body(at):
    """Two that answer 503 and the third of the list: everyone was asked once, with all of it."""
    await at.prefer(*at.servers)
    at.servers[0].refuses_with = at.servers[1].refuses_with = 503
    body = chat(3_000_000)
    reply = await at.ask(body)
    assert (reply.status, reply.headers["x-served-by"]) == (200, "m2"), reply.first
    assert reply.body == body
    assert [len(server.requests) for server in at.servers] == [1, 1, 1]
    assert all(server.requests[0].body == body for server in at.servers)
    at.servers[0].refuses_with = at.servers[1].refuses_with = 0
    await at.settle()


async def test_the_picker_learns_who_served(at):
    """The first refuses, the second serves and keeps its reply open: what is in flight is booked
    on the second."""
    await at.prefer(*at.servers)
    at.servers[0].refuses_with = 503
    async with held_streams(at, 5) as finish:
        flying = {e["name"]: e["in_flight"] for e in at.endpoints()}
        at.servers[0].refuses_with = 0
        assert flying == {"m0": 0, "m1": 5, "m2": 0}, flying
        await finish()
    await at.settle()


# ---- the picker's own changes ------------------------------------------------------------------


async def test_the_config_is_reloaded_under_load(at):
    text = CONFIG.format(folder=at.folder)
    reloads = "llmd_config_reloads_total"
    async with Load(at) as load:
        for turn in range(6):
            scorer = "kv-cache-utilization-scorer" if turn % 2 == 0 else "queue-scorer"
            before = at.metric(reloads, result="ok")
            at.write_config(text.replace("queue-scorer", scorer))
            await until("it is read again", lambda: at.metric(reloads, result="ok") > before)
            await load.more(100)
    load.assert_none_failed()


async def test_a_bad_config_changes_nothing(at):
    reloads = "llmd_config_reloads_total"
    async with Load(at) as load:
        at.write_config("kind: [")
        await until("the config is refused", lambda: at.metric(reloads, result="rejected") > 0)
        await load.more(100)
    load.assert_none_failed()


async def test_endpoints_come_and_go_under_load(at):
    async with Load(at) as load:
        for left in (2, 1, 3, 2, 3):
            at.write_endpoints(at.servers[:left])
            await until("the file is read", lambda: len(at.endpoints()) == left)
            at.forget()
            await load.more(100)
            used = sum(bool(server.requests) for server in at.servers)
            assert used == left, (used, left)
    load.assert_none_failed()


async def restarted(at, load, stop):
    await load.more(200)
    await asyncio.to_thread(stop)
    await asyncio.sleep(0.5)
    at.picker.start()
    await load.more(400)
    await until("the new picker is asked", lambda: at.metric("llm_d_epp_request_total") > 100)


async def test_the_picker_is_restarted_under_load(at):
    """SIGTERM: who is under way ends in peace, who comes meanwhile waits in Envoy."""
    async with Load(at) as load:
        await restarted(at, load, at.picker.stop)
    load.assert_none_failed()
    await at.settle()


async def test_the_picker_is_killed_under_load(at):
    """What it had decided already is lost, at most one request of every client."""
    async with Load(at) as load:
        await restarted(at, load, lambda: at.picker.stop(kill=True))
    lost = sum(n for status, n in load.statuses.items() if status != 200) + len(load.broken)
    print(f"lost: {lost} of {load.total()}: {load.statuses} {load.broken[:3]}")
    assert lost <= load.clients and "changed" not in load.statuses
    await at.settle()


async def test_without_a_picker(at):
    """failure_mode_allow lets pass what has no body. Of a body Envoy has sent a part by the time it
    learns, and then refuses, whatever the option says."""
    await asyncio.to_thread(at.picker.stop, True)
    try:
        assert (await at.ask(None, method="GET", path="/v1/models")).status == 200
        assert (await at.ask(chat())).status == 500
    finally:
        at.picker.start()


async def test_sigterm_lets_streams_end(at):
    """--drain-timeout: the stream ends whole after SIGTERM, new ones are served meanwhile, and
    then the picker is gone."""
    async with held_streams(at, 20) as finish:
        at.picker.process.terminate()
        await asyncio.sleep(0.3)
        assert not at.picker.ended()
        assert (await at.ask(chat())).status == 200
        await finish()
    assert await asyncio.to_thread(at.picker.process.wait, 15) == 0


# ---- refusals ----------------------------------------------------------------------------------


async def test_errors_are_text(at):
    reply = await at.ask(b"{")
    assert reply.status == 400 and reply.body.startswith(b"inference error: BadRequest - "), reply


async def test_a_refusal_inside_the_upload(at):
    """The memory budget is used up by the body that is still coming."""
    async with connected(at.port) as (reader, writer):
        writer.write(head_of("POST /v1/chat/completions HTTP/1.1", {
            "host": "x", "content-type": "application/json", "content-length": 64_000_000}))
        filler = b"x" * 100_000

        async def pour():
            with contextlib.suppress(ConnectionError):
                for _ in range(600):
                    writer.write(filler)
                    await writer.drain()
        pouring = asyncio.ensure_future(pour())
        reply = await read_head(reader)
        await read_body(reader, reply)
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
    assert reply.status == 429, reply
    assert reply.headers["x-llm-d-request-dropped-reason"] == "rejected-saturated", reply.headers
    assert int(reply.headers["retry-after"]) > 0
    await at.settle()
    assert (await at.ask(chat(100_000))).status == 200
    assert at.requests() == 1


async def test_the_budget_is_given_back(at):
    """Clients that leave take their part of it along."""
    for _ in range(30):
        async with connected(at.port) as (_, writer):
            writer.write(head_of("POST /v1/chat/completions HTTP/1.1", {
                "host": "x", "content-type": "application/json", "content-length": 600_000}))
            writer.write(b"{" * 300_000)
            await writer.drain()
            await asyncio.sleep(0.01)
    await at.settle()
    # Workers take their shares in steps, so the last bytes of the 1 MiB may lie with another.
    assert (await at.ask(chat(900_000))).status == 200


async def test_no_endpoint_is_left(at):
    at.write_endpoints([])
    await until("the file is read", lambda: not at.endpoints())
    for reply in (await at.ask(chat()), await at.ask(None, method="GET", path="/v1/models"),
                  await at.ask(b"x", path=PASSED_ON)):
        assert reply.status == 503, reply
        assert reply.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints", reply
    at.write_endpoints(at.servers)
    await until("the file is read", at.endpoints)
    assert (await at.ask(chat())).status == 200


# ---- certificates ------------------------------------------------------------------------------


def make_certificate(folder, serial):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-set_serial",
                    str(serial), "-keyout", folder / "key.new", "-out", folder / "crt.new"],
                   check=True, capture_output=True)
    (folder / "key.new").rename(folder / "tls.key")
    (folder / "crt.new").rename(folder / "tls.crt")


def served_serial(port):
    certificate = ssl.get_server_certificate(("127.0.0.1", port))
    text = subprocess.run(["openssl", "x509", "-noout", "-serial"], input=certificate,
                          capture_output=True, check=True, text=True).stdout
    return int(text.strip().split("=")[1], 16)


async def test_a_certificate_is_replaced_under_load(at, folder):
    async with Load(at) as load:
        assert await asyncio.to_thread(served_serial, at.picker_port) == 1001
        make_certificate(folder, 1002)
        await until("the new certificate is served",
                    lambda: served_serial(at.picker_port) == 1002)
        await load.more(100)
        # Envoy has to connect anew to meet it.
        at.envoy.stop(kill=True)
        load.ended = True
    at.envoy.start()
    await at.ready()
    async with Load(at) as second:
        await second.more(50)
    second.assert_none_failed()


# ---- metadata ----------------------------------------------------------------------------------


async def test_metadata_names_a_subset(at):
    for _ in range(60):
        assert (await at.ask(chat())).status == 200
        assert (await at.ask(None, method="GET", path="/v1/models")).status == 200
    counts = [len(server.requests) for server in at.servers]
    assert counts[2] == 0 and min(counts[:2]) > 0, counts


async def test_metadata_carries_the_choice(at):
    """Envoy's access log shows what came back in envoy.lb; the header says the same."""
    at.forget()
    await at.ask(chat())
    named = at.last_request().headers["x-gateway-destination-endpoint"]
    await until("the line is written", lambda: f"chosen={named}" in at.envoy.output())


async def test_a_subset_as_text(at):
    for _ in range(30):
        assert (await at.ask(chat())).status == 200
    assert [bool(server.requests) for server in at.servers] == [False, True, False]


async def test_a_subset_of_strangers(at):
    reply = await at.ask(chat())
    assert reply.status == 503, reply
    assert reply.headers["x-llm-d-request-dropped-reason"] == "rejected-no-endpoints", reply


# ---- replies not shown -------------------------------------------------------------------------


async def test_unread_replies_are_logged_once(at):
    for _ in range(5):
        await at.ask(chat(stream=True), headers={"x-do": "sse"})
    await at.settle()
    assert at.picker.output().count("llmd_replies_unread_total") == 1, at.picker.output()


# ---- simulated servers -------------------------------------------------------------------------


async def test_simulated_servers(at):
    """What `llmd sim` answers, read by the picker: usage, and the client's name of the model."""
    ports = PORTS.take(2)
    sims = [Process([LLMD, "sim", "--host", "127.0.0.1", "--port", port, "--profile", "instant",
                     "--served-model-name", "private-version"], at.folder / f"sim{port}.log")
            for port in ports]
    at.processes += sims
    at.write("endpoints.yaml", "endpoints:\n" + "".join(
        f'- {{name: s{port}, address: 127.0.0.1, port: "{port}"}}\n' for port in ports))
    await until("both are read", lambda: [e["load_age_ms"] is not None for e in at.endpoints()
                                          if e["name"][0] == "s"] == [True, True])
    name = "llm_d_epp_request_output_tokens_sum"
    for i in range(20):
        stream = i % 2 == 0
        reply = await at.ask(chat(model="public", stream=stream, max_tokens=7,
                                  stream_options={"include_usage": True} if stream else None))
        assert reply.status == 200 and b"private-version" not in reply.body, reply
        if stream:
            assert reply.body.endswith(b"data: [DONE]\n\n"), reply.body
        else:
            assert (reply.json()["model"], reply.json()["usage"]["completion_tokens"]) == (
                "public", 7)
    await at.settle()
    assert at.metric(name) == 20 * 7, at.metric(name)
