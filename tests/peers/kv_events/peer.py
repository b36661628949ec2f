"""A subscriber made of pyzmq, msgpack and hashlib, as vLLM's example subscriber is, in front of
`llmd sim`: nothing of llmd's own readers is used."""

import hashlib
import json
import os
import pathlib
import struct
import sys
import tempfile
import time
import urllib.request

import msgpack
import zmq
import zmq.auth

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from harness import LLMD, Program, free_ports, report, wait_for_http  # noqa: E402

BLOCK = 16
RECEIVE_MS = 10_000
END = (-1).to_bytes(8, "big", signed=True)


def cbor(value):
    """Canonical CBOR of what block hashes are made of."""
    def head(major, n):
        if n < 24:
            return bytes([major << 5 | n])
        for info, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
            if n < 1 << 8 * size:
                return bytes([major << 5 | info]) + n.to_bytes(size, "big")
        raise ValueError(n)

    if value is None:
        return b"\xf6"
    if isinstance(value, int):
        return head(0, value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        return head(3, len(value.encode())) + value.encode()
    return head(4, len(value)) + b"".join(cbor(item) for item in value)


def chain(tokens, salt=None):
    digest = hashlib.sha256(cbor("0")).digest()
    digests = []
    for i in range(0, len(tokens) - BLOCK + 1, BLOCK):
        extra = [["cache_salt", salt]] if salt and i == 0 else None
        digest = hashlib.sha256(cbor([digest, tokens[i:i + BLOCK], extra])).digest()
        digests.append(digest)
    return digests


def complete(port, tokens, **more):
    body = json.dumps({"prompt": tokens, "max_tokens": 1, **more}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body,
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def simulated(port, *flags):
    return Program([LLMD, "sim", "--host", "127.0.0.1", "--port", port, "--model", "m",
                    "--block-size", BLOCK, "--hash-seed", "0", "--enable-kvcache", *flags])


def replay(context, address, start):
    """What vLLM's example subscriber does: REQ's framing on a DEALER, until the end mark."""
    with context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, RECEIVE_MS)
        socket.connect(address)
        socket.send_multipart([b"", start.to_bytes(8, "big")])
        messages = []
        while True:
            frames = socket.recv_multipart()
            assert frames[0] == b"", frames
            if frames[-2] == END:
                assert frames[-1] == b"", frames
                return messages
            messages.append((frames[1:-2], int.from_bytes(frames[-2], "big"),
                             msgpack.unpackb(frames[-1])))


def live(subscriber, port):
    """Sends prompts until one is heard; gives its tokens and its message."""
    subscriber.setsockopt(zmq.RCVTIMEO, 200)
    for i in range(100):
        tokens = list(range(1000 * i, 1000 * i + 2 * BLOCK))
        complete(port, tokens)
        try:
            while True:
                topic, sequence, payload = subscriber.recv_multipart()
                batch = msgpack.unpackb(payload)
                event = batch[1][-1]
                stored = event["token_ids"] if isinstance(event, dict) else event[3]
                if stored == tokens:
                    return tokens, topic, int.from_bytes(sequence, "big"), batch
        except zmq.Again:
            pass
    raise AssertionError("nothing was heard")


def test_bound_maps_integers():
    port = free_ports(3)
    events, replays = f"tcp://127.0.0.1:{port + 1}", f"tcp://127.0.0.1:{port + 2}"
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber, \
            simulated(port, "--zmq-endpoint", f"tcp://*:{port + 1}",
                      "--kv-events-replay-endpoint", replays) as sim:
        wait_for_http(f"http://127.0.0.1:{port}/health", sim)
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.setsockopt_string(zmq.SUBSCRIBE, "kv@")
        subscriber.connect(events)
        tokens, topic, sequence, (stamp, [event], rank) = live(subscriber, port)
        assert topic == f"kv@127.0.0.1:{port}@m".encode(), topic
        assert abs(stamp - time.time()) < 60 and rank == 0
        digests = chain(tokens)
        assert event == {
            "type": "BlockStored",
            "block_hashes": [struct.unpack(">Q", d[-8:])[0] for d in digests],
            "parent_block_hash": None, "token_ids": tokens, "block_size": BLOCK,
            "lora_id": None, "medium": "GPU", "lora_name": None, "extra_keys": [None, None],
            "group_idx": 0, "kv_cache_spec_kind": "full_attention"}, event
        complete(port, tokens + list(range(BLOCK)), cache_salt="tenant")
        messages = replay(context, replays, sequence)
        assert [m[1] for m in messages] == [sequence, sequence + 1], messages
        assert messages[0][0] == [topic]
        salted = messages[1][2][1][0]
        assert salted["extra_keys"] == [["tenant"], None, None], salted
        want = chain(tokens + list(range(BLOCK)), "tenant")
        assert salted["block_hashes"] == [int.from_bytes(d[-8:], "big") for d in want]


def test_connected_arrays_digests():
    port = free_ports(2)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.bind(f"tcp://127.0.0.1:{port + 1}")
        with simulated(port, "--zmq-endpoint", f"tcp://127.0.0.1:{port + 1}",
                       "--use-vllm-map-event-format=false", "--kv-events-byte-hashes",
                       "--data-parallel-rank", "3") as sim:
            wait_for_http(f"http://127.0.0.1:{port}/health", sim)
            tokens, _, _, (_, [event], rank) = live(subscriber, port)
            assert rank == 3
            assert event[:3] == ["BlockStored", chain(tokens), None], event
            assert event[4:8] == [BLOCK, None, "GPU", None], event


def test_curve():
    port = free_ports(2)
    with tempfile.TemporaryDirectory(dir=os.environ.get("LLMD_TMP")) as folder, \
            zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        public_file, secret_file = zmq.auth.create_certificates(folder, "picker")
        public, secret = zmq.auth.load_certificate(secret_file)
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.curve_server = True
        subscriber.curve_publickey, subscriber.curve_secretkey = public, secret
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.bind(f"tcp://127.0.0.1:{port + 1}")
        with simulated(port, "--zmq-endpoint", f"tcp://127.0.0.1:{port + 1}",
                       "--zmq-curve-server-key", public_file) as sim:
            wait_for_http(f"http://127.0.0.1:{port}/health", sim)
            live(subscriber, port)


def test_stands_in_for_upstreams_simulator():
    port = free_ports(2)
    with tempfile.TemporaryDirectory(dir=os.environ.get("LLMD_TMP")) as folder, \
            zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        link = pathlib.Path(folder) / "llm-d-inference-sim"
        link.symlink_to(LLMD)
        subscriber.setsockopt(zmq.LINGER, 0)
        subscriber.setsockopt(zmq.SUBSCRIBE, b"")
        subscriber.bind(f"tcp://127.0.0.1:{port + 1}")
        with Program([link, "--port", port, "--model", "m", "--enable-kvcache",
                      "--block-size", BLOCK, "--hash-seed", "0", "--zmq-endpoint",
                      f"tcp://127.0.0.1:{port + 1}"]) as sim:
            wait_for_http(f"http://127.0.0.1:{port}/health", sim)
            _, topic, _, (_, [event], _) = live(subscriber, port)
            assert event[0] == "BlockStored", event
            assert topic == f"kv@127.0.0.1:{port}@m".encode(), topic


sys.exit(report([test_bound_maps_integers, test_connected_arrays_digests, test_curve,
                 test_stands_in_for_upstreams_simulator]))
