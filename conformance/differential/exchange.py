"""Plays steps over one ext_proc stream and writes down the answers in a comparable form.

A stream becomes {"replies": [..], "end": "OK"}. Each reply is one of
    {"request_headers": {"clear_route_cache": true, "set": [[name, value]..]}, "metadata": {..}}
    {"request_body": {"body": text, "chunks": [sizes], "end": true}}          likewise response_*
    {"immediate": {"status": 429, "set": [..], "body": text}}
Headers are sorted; neighbouring body replies are joined, their sizes kept; bodies of more than
BODY_TEXT_MAX bytes are written as size and SHA-256; addresses become names in braces.
"""

import hashlib
import queue
import re
import threading

import grpc
from google.protobuf import json_format

from protos import SERVICE
from steps import (Body, Cancel, Headers, Pause, ReplyBody, ReplyHeaders, ReplyTrailers, Trailers)

BODY_TEXT_MAX = 400
QUIET_SECONDS = 0.7  # a picker that answered nothing for so long says nothing
ANSWER_SECONDS = 5
HEX = re.compile(r"[0-9a-f]{32}")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


class Exchange:
    def __init__(self, messages, port, fleet):
        self.messages = messages
        self.fleet = fleet
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1),
                                          ("grpc.max_send_message_length", -1)])
        self.process = self.channel.stream_stream(
            f"/{SERVICE}/Process",
            request_serializer=messages.ProcessingRequest.SerializeToString,
            response_deserializer=messages.ProcessingResponse.FromString)

    def close(self):
        self.channel.close()

    def open(self):
        return Stream(self)


class Stream:
    def __init__(self, exchange):
        self.exchange = exchange
        self.outgoing = queue.Queue()
        self.received = []
        self.end = None
        self.changed = threading.Condition()
        self.call = exchange.process(iter(self.outgoing.get, None))
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        end = "OK"
        try:
            for message in self.call:
                with self.changed:
                    self.received.append(message)
                    self.changed.notify_all()
        except grpc.RpcError as error:
            end = f"{error.code().name}: {error.details()}"
        with self.changed:
            self.end = end
            self.changed.notify_all()

    def wait(self, *kinds, end_of_body=False, seconds=ANSWER_SECONDS):
        """Until a reply of these kinds came (its last chunk), an immediate one, or the end."""
        def arrived():
            if self.end is not None:
                return True
            for message in self.received:
                kind = message.WhichOneof("response")
                if kind == "immediate_response":
                    return True
                if kind in kinds and (not end_of_body or ends_body(getattr(message, kind))):
                    return True
            return False

        with self.changed:
            self.changed.wait_for(arrived, seconds)

    def play(self, steps):
        for step in steps:
            if self.end is not None:
                return
            if isinstance(step, Pause):
                with self.changed:
                    self.changed.wait_for(lambda: self.end is not None, step.seconds)
            elif isinstance(step, Cancel):
                self.call.cancel()
            else:
                self.outgoing.put(encode(self.exchange, step))
                self.wait_for_answer(step)

    def wait_for_answer(self, step):
        if isinstance(step, Headers) and step.end:
            self.wait("request_headers")
        elif isinstance(step, Body) and step.end:
            self.wait("request_body", end_of_body=True)
        elif isinstance(step, Trailers):
            self.wait("request_trailers", seconds=QUIET_SECONDS)
        elif isinstance(step, ReplyHeaders):
            self.wait("response_headers")
        elif isinstance(step, ReplyBody) and step.end:
            self.wait("response_body", end_of_body=True)
        elif isinstance(step, ReplyTrailers):
            self.wait("response_trailers")

    def finish(self):
        """Half-closes, and returns the stream in comparable form."""
        self.outgoing.put(None)
        with self.changed:
            self.changed.wait_for(lambda: self.end is not None, ANSWER_SECONDS)
            end = self.end
        if end is None:
            self.call.cancel()
            end = f"open {ANSWER_SECONDS} s after half-close"
        self.reader.join(ANSWER_SECONDS)
        writer = Writer(self.exchange.fleet.hosts)
        return {"replies": writer.replies(self.received), "end": writer.text(end)}


def ends_body(body):
    return body.response.body_mutation.streamed_response.end_of_stream


def encode(exchange, step):
    message = exchange.messages.ProcessingRequest()
    if isinstance(step, (Headers, ReplyHeaders)):
        reply = isinstance(step, ReplyHeaders)
        target = message.response_headers if reply else message.request_headers
        target.end_of_stream = step.end
        add_headers(target.headers.headers, step.pairs, not reply and step.plain)
    elif isinstance(step, (Body, ReplyBody)):
        body = message.response_body if isinstance(step, ReplyBody) else message.request_body
        body.body, body.end_of_stream = step.data, step.end
        body.SetInParent()
    elif isinstance(step, Trailers):
        message.request_trailers.SetInParent()
        add_headers(message.request_trailers.trailers.headers, step.pairs, False)
    elif isinstance(step, ReplyTrailers):
        message.response_trailers.SetInParent()
        add_headers(message.response_trailers.trailers.headers, step.pairs, False)
    add_metadata(exchange.fleet, message, step)
    return message


def add_headers(target, pairs, plain):
    for name, value in pairs:
        header = target.add(key=name)
        if plain:
            header.value = value
        else:
            header.raw_value = value.encode()


def add_metadata(fleet, message, step):
    subset = getattr(step, "subset", None)
    known = {name[1:-1]: host for host, name in fleet.hosts.items()}
    filled = lambda text: re.sub(r"\{(.*?)\}", lambda m: known.get(m[1], m[0]), text)  # noqa: E731
    fields = message.metadata_context.filter_metadata if subset is not None else None
    if isinstance(subset, str):
        subset = filled(subset)
    elif subset is not None:
        subset = [filled(entry) if isinstance(entry, str) else entry for entry in subset]
    if fields is not None:
        fields["envoy.lb.subset_hint"].update({"x-gateway-destination-endpoint-subset": subset})
    if getattr(step, "served", ""):
        message.metadata_context.filter_metadata["envoy.lb"].update(
            {"x-gateway-destination-endpoint-served": filled(step.served)})


class Writer:
    """Turns ProcessingResponses into what is recorded."""

    def __init__(self, hosts):
        self.hosts = hosts

    def text(self, text):
        for host in sorted(self.hosts, key=len, reverse=True):
            text = text.replace(host, self.hosts[host])
        return UUID.sub("{uuid}", text)

    def replies(self, received):
        written = []
        for message in received:
            entry = self.reply(message)
            if written and self.join(written[-1], entry):
                continue
            written.append(entry)
        for entry in written:
            for kind, body in entry.items():
                if kind.endswith("_body") and "body" in body:
                    entry[kind] = {**body, "body": self.body(body["body"])}
        return written

    def join(self, before, entry):
        """Joins a body reply to the one before it; metadata goes with the last chunk."""
        kind = next(iter(entry))
        if not kind.endswith("_body") or kind not in before or "metadata" in before:
            return False
        if before[kind]["end"] or set(before[kind]) != set(entry[kind]):
            return False
        before[kind]["body"] += entry[kind]["body"]
        before[kind]["chunks"] += entry[kind]["chunks"]
        before[kind]["end"] = entry[kind]["end"]
        if "metadata" in entry:
            before["metadata"] = entry["metadata"]
        return True

    def reply(self, message):
        kind = message.WhichOneof("response")
        content = getattr(message, kind)
        if kind == "immediate_response":
            entry = {"immediate": {"status": content.status.code, **self.mutation(content.headers),
                                   "body": self.text(content.body.decode(errors="replace"))}}
            if content.HasField("grpc_status"):
                entry["immediate"]["grpc_status"] = content.grpc_status.status
        elif kind.endswith("_trailers"):
            entry = {kind: self.mutation(content.header_mutation)}
        else:
            entry = {kind: self.common(content.response, kind)}
        if message.HasField("dynamic_metadata"):
            entry["metadata"] = self.names(json_format.MessageToDict(message.dynamic_metadata))
        for field in ("mode_override", "override_message_timeout"):
            if message.HasField(field):
                entry[field] = str(getattr(message, field))
        return entry

    def common(self, common, kind):
        entry = {}
        if common.status:
            entry["status"] = common.status
        if common.clear_route_cache:
            entry["clear_route_cache"] = True
        entry.update(self.mutation(common.header_mutation))
        if kind.endswith("_body"):
            mutation = common.body_mutation
            if mutation.WhichOneof("mutation") == "streamed_response":
                streamed = mutation.streamed_response
                entry.update(body=streamed.body, chunks=[len(streamed.body)],
                             end=streamed.end_of_stream)
            else:
                entry["mutation"] = str(mutation)
        return entry

    def mutation(self, mutation):
        entry = {}
        if mutation.set_headers:
            entry["set"] = sorted(self.header(option) for option in mutation.set_headers)
        if mutation.remove_headers:
            entry["remove"] = sorted(mutation.remove_headers)
        return entry

    def header(self, option):
        value = option.header.raw_value.decode(errors="replace")
        pair = [option.header.key, "{hex}" if HEX.fullmatch(value) else self.text(value)]
        if option.header.value:
            pair = [option.header.key, self.text(option.header.value), "value"]
        if option.append_action or option.HasField("append"):
            pair.append("append")
        return pair

    def names(self, value):
        if isinstance(value, dict):
            return {self.text(key): self.names(item) for key, item in sorted(value.items())}
        if isinstance(value, list):
            return [self.names(item) for item in value]
        if isinstance(value, float):
            return round(value, 9)
        return self.text(value) if isinstance(value, str) else value

    def body(self, data):
        if len(data) > BODY_TEXT_MAX:
            return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()[:32]}
        try:
            return self.text(data.decode())
        except UnicodeDecodeError:
            return {"hex": data.hex()}
