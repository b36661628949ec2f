"""What Envoy tells a picker about one HTTP request, as a list of steps."""

import dataclasses
import json


@dataclasses.dataclass
class Headers:
    pairs: list
    end: bool = False
    subset: object = None  # value of the subset hint: list, text, None for no hint
    plain: bool = False    # in `value` rather than in `raw_value`


@dataclasses.dataclass
class Body:
    data: bytes
    end: bool = False
    subset: object = None


@dataclasses.dataclass
class Trailers:
    pairs: list


@dataclasses.dataclass
class ReplyHeaders:
    pairs: list
    end: bool = False
    served: str = ""  # endpoint named in the served feedback


@dataclasses.dataclass
class ReplyBody:
    data: bytes
    end: bool = False


@dataclasses.dataclass
class ReplyTrailers:
    pairs: list


@dataclasses.dataclass
class Pause:
    seconds: float


@dataclasses.dataclass
class Cancel:
    """The client is gone: the stream is reset."""


JSON_HEADERS = {"content-type": "application/json", "x-request-id": "request-1"}
EVENT_HEADERS = [(":status", "200"), ("content-type", "text/event-stream")]
OK_HEADERS = [(":status", "200"), ("content-type", "application/json")]


def encode(body):
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    return json.dumps(body, separators=(",", ":")).encode()


def head(path, method="POST", **headers):
    pairs = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "gateway")]
    return pairs + [(name.replace("_", "-"), value) for name, value in headers.items()]


def request(body, path="/v1/completions", headers=None, cuts=(), subset=None, trailers=None,
            plain=False):
    """`cuts` are offsets where the body is split; `subset` a list, a text, or None for no hint."""
    data = encode(body)
    pairs = head(path) + list({**JSON_HEADERS, **(headers or {})}.items())
    borders = [0, *cuts, len(data)]
    chunks = [data[begin:end] for begin, end in zip(borders, borders[1:])]
    steps = [Headers(pairs, subset=subset, plain=plain)]
    last = len(chunks) - 1
    steps += [Body(chunk, index == last and trailers is None, subset)
              for index, chunk in enumerate(chunks)]
    return steps + ([Trailers(trailers)] if trailers is not None else [])


def reply(*chunks, headers=None, served="", end=True, trailers=None):
    """The last chunk carries the end of stream unless `end` is False or trailers follow."""
    steps = [ReplyHeaders(headers or OK_HEADERS, served=served)]
    last = len(chunks) - 1
    steps += [ReplyBody(encode(chunk), end and index == last and trailers is None)
              for index, chunk in enumerate(chunks)]
    return steps + ([ReplyTrailers(trailers)] if trailers is not None else [])


def completion(prompt="hello", model="base", **more):
    return {"model": model, "prompt": prompt, **more}


def chat(text="hello", model="base", **more):
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


DONE = reply('{"id":"1","model":"base","usage":{"prompt_tokens":3,"completion_tokens":2,'
             '"total_tokens":5}}')


# --- groups: one picker start with its configuration, and the cases played against it ------------


@dataclasses.dataclass
class Case:
    """`streams` run one after the other; one in `held` stays open until the case is over.

    With `repeat` the only stream runs that often and the distribution of its picks is recorded.
    """

    name: str
    streams: list
    held: tuple = ()
    repeat: int = 1
    pause: float = 0.0  # seconds after each stream, for what a picker books in the background
    settle: bool = True  # wait after each stream until every endpoint was read again


@dataclasses.dataclass
class Group:
    name: str
    config: str
    endpoints: list
    cases: list
    flags: tuple = ("--emit-endpoint-scores",)
    watch: tuple = ()     # metrics whose change by each case is recorded
    scrapes: int = 3      # of each endpoint's /metrics before the first case; 0: never read


def config(plugins, profile=None, profiles=None, **more):
    """An EndpointPickerConfig with file discovery. A plugin is a type or a dict.

    `profile` lists (plugin, weight) or plugin names of the one profile `default`.
    """
    listed = [{"type": plugin} if isinstance(plugin, str) else dict(plugin) for plugin in plugins]
    listed.append({"type": "file-discovery", "parameters": {"path": "$ENDPOINTS"}})
    document = {"apiVersion": "llm-d.ai/v1alpha1", "kind": "EndpointPickerConfig",
                "plugins": listed}
    if profile is not None:
        profiles = {"default": profile}
    if profiles:
        document["schedulingProfiles"] = [
            {"name": name, "plugins": [reference(entry) for entry in entries]}
            for name, entries in profiles.items()]
    data_layer = {"discovery": {"pluginRef": "file-discovery"}, **more.pop("dataLayer", {})}
    document["dataLayer"] = data_layer
    return json.dumps({**document, **more}, indent=1)


def reference(entry):
    if isinstance(entry, str):
        return {"pluginRef": entry}
    return {"pluginRef": entry[0], "weight": entry[1]}
