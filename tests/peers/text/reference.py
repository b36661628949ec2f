"""The reference of models.py: chat requests rendered by Python's jinja2, and the requests.

The environment is the one that transformers makes (utils/chat_template_utils.py) and the request is
prepared as vLLM's OpenAI server does (renderers/chat_utils, entrypoints/openai). Written anew from
what these do; only the packages jinja2 and tokenizers are needed.
"""

import copy
import datetime
import json

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = 1_750_000_000  # 2025-06-15 15:06:40 UTC
TAG = "CONTINUE_FINAL_MESSAGE_TAG "


class Generation(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %}: a scope."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def strftime_now(pattern):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(
        tzinfo=None).strftime(pattern)


def environment():
    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = strftime_now
    return env


def reads(node, variable, key=None):
    """The node is the variable, or its member, or a filter, test or slice of that."""
    nodes = jinja2.nodes
    if isinstance(node, (nodes.Filter, nodes.Test)):
        return node.node is not None and reads(node.node, variable, key)
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
        return reads(node.node, variable, key)
    if key is None:
        return isinstance(node, nodes.Name) and node.name == variable
    if isinstance(node, nodes.Getitem):
        constant = isinstance(node.arg, nodes.Const) and node.arg.value == key
        return constant and reads(node.node, variable)
    if isinstance(node, nodes.Getattr):
        return node.attr == key and reads(node.node, variable)
    return False


def target(node):
    if not isinstance(node, jinja2.nodes.Name):
        raise ValueError("vLLM gives up here")
    return node.name


def takes_parts(tree):
    """Whether vLLM would find the content format of a template to be 'openai'."""
    lists, seen = ["messages"], 0
    try:
        while seen < len(lists):
            for node in tree.find_all(jinja2.nodes.Assign):
                if reads(node.node, lists[seen]) and target(node.target) not in lists:
                    lists.append(node.target.name)
            seen += 1
        loops = list(tree.find_all(jinja2.nodes.For))
        items = [target(loop.target) for loop in loops if any(reads(loop.iter, x) for x in lists)]
        for loop in loops:
            if any(reads(loop.iter, item, "content") for item in items):
                target(loop.target)
                return True
    except ValueError:
        pass
    return False


def content_of(content, parts, tool):
    if content is None:
        content = []
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    out = []
    for part in content:
        text = part if isinstance(part, str) else part["text"]
        if parts:
            out.append({"type": "text", "text": text})
        elif text:
            out.append(text)
    if not parts:
        return "\n".join(out)
    return "\n".join(part["text"] for part in out) if tool else out


def ordered(value, keys):
    return {key: value[key] for key in keys if key in value}


def message_of(message, parts):
    role = message["role"]
    reasoning = message.get("reasoning") or message.get("reasoning_content")
    out = {}
    if role == "assistant" and reasoning is not None:
        out["thinking"] = reasoning
    out["role"] = role
    out["content"] = content_of(message.get("content"), parts, role == "tool")
    if role == "assistant":
        if message.get("tool_calls"):
            out["tool_calls"] = []
            for call in copy.deepcopy(message["tool_calls"]):
                try:
                    arguments = json.loads(call["function"].get("arguments") or "{}")
                except json.JSONDecodeError:
                    arguments = {}
                call["function"]["arguments"] = arguments if isinstance(arguments, dict) else {}
                call["function"] = ordered(call["function"], ["arguments", "name"])
                out["tool_calls"].append(ordered(call, ["id", "function", "type"]))
        if reasoning is not None:
            out["reasoning"] = out["reasoning_content"] = reasoning
    if role == "tool" and message.get("tool_call_id") is not None:
        out["tool_call_id"] = message["tool_call_id"]
    if "name" in message:
        out["name"] = message["name"]
    return out


def tool_of(tool):
    function = {key: tool["function"].get(key) for key in ("name", "description", "parameters")}
    if tool["function"].get("strict") is not None:
        function["strict"] = tool["function"]["strict"]
    return {"type": tool.get("type", "function"), "function": function}


class Template:
    def __init__(self, source, specials):
        self.env = environment()
        self.compiled = self.env.from_string(source)
        self.parts = takes_parts(self.env.parse(source))
        self.specials = specials

    def render(self, request):
        """The prompt, or an exception."""
        messages = [message_of(message, self.parts) for message in request["messages"]]
        if not messages:
            raise ValueError("no messages")
        tools = request.get("tools")
        kwargs = dict(request.get("chat_template_kwargs") or {})
        effort = request.get("reasoning_effort")
        if effort is not None:
            kwargs.setdefault("enable_thinking", effort != "none")
            kwargs["reasoning_effort"] = effort
        goes_on = request.get("continue_final_message", False)
        if goes_on:
            where = messages[-1]
            if self.parts:
                where = [part for part in where["content"] if "text" in part][-1]
            key = "text" if self.parts else "content"
            final = where[key]
            where[key] += TAG
        values = self.specials | kwargs | {
            "messages": messages,
            "tools": None if tools is None else [tool_of(tool) for tool in tools],
            "documents": request.get("documents"),
            "add_generation_prompt": request.get("add_generation_prompt", True)}
        prompt = self.compiled.render(**values)
        if not goes_on:
            return prompt
        if final.strip() not in prompt or TAG.strip() not in prompt:
            raise ValueError("the final message is not in the prompt")
        at = prompt.rindex(TAG.strip())
        return prompt[:at] if prompt[at:].startswith(TAG) else prompt[:at].rstrip()


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a place,\nin \"plain\" words — with ümlauts.",
    "parameters": {"type": "object", "required": ["place"], "properties": {
        "place": {"type": "string", "description": "City & country <b>"},
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14.5},
        "more": {"type": "array", "items": {"type": "object", "properties": {
            "a": {"type": ["string", "null"]}, "b": {"anyOf": [{"type": "number"},
                                                             {"type": "boolean"}]}}}}}}}}
BARE = {"type": "function", "function": {"name": "ping"}}
STRICT = {"function": {"strict": True, "parameters": {"type": "object", "properties": {}},
                       "description": "", "name": "none_at_all"}}


def call(name, arguments, identity="abcdefgh1"):
    return {"type": "function", "id": identity, "function": {"name": name, "arguments": arguments}}


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content} | more


SYSTEM = {"role": "system", "content": "You are terse.\n\nReally. "}
DIALOGUE = [user("Hello there"), assistant("Hi! How can I help?"), user(" And now?\n")]
TOOL_DIALOGUE = [
    user("Weather in Köln?"),
    assistant(None, tool_calls=[call("get_weather", '{"place": "Köln", "days": 2, "x": 1e22}')]),
    {"role": "tool", "tool_call_id": "abcdefgh1", "name": "get_weather",
     "content": '{"temp": 21.5, "sky": "klar"}'},
    assistant("21.5 °C and clear."),
    user("Thanks!")]
TWO_CALLS = [
    user("Both?"),
    assistant("Let me see.", tool_calls=[
        call("get_weather", '{"place":"A","more":[{"a":null,"b":true}]}', "abcdefgh1"),
        call("ping", "", "abcdefgh2")]),
    {"role": "tool", "tool_call_id": "abcdefgh1", "content": [{"type": "text", "text": "sun"},
                                                             {"type": "text", "text": "moon"}]},
    {"role": "tool", "tool_call_id": "abcdefgh2", "content": "pong"}]
REASONED = [
    user("1+1?"),
    assistant("2", reasoning_content="One and one is\n\ntwo."),
    user("2+2?"),
    assistant("<think>\nFour, clearly.\n</think>\n\n4"),
    user("Sure?")]
UNICODE = [user("日本語 😀 e\u0301 \u00a0\u2028 <|im_end|> {{ x }} {% raw %} \\n "
                "\"quoted\" 'single' &amp;"),
           assistant("naïve — “ok”\r\nnext\x0bline\x1c"), user("\u200b\u3000 ok \u0085")]
PARTS = [user([{"type": "text", "text": "first"}, {"type": "text", "text": ""},
               {"type": "text", "text": "second "}]), assistant("ok"), user(["third"])]
DOCUMENTS = [{"title": "One", "text": "Text of one.\nTwo lines."}, {"title": "", "text": "ü"}]

REQUESTS = {
    "hello": {"messages": DIALOGUE[:1]},
    "dialogue": {"messages": DIALOGUE},
    "system": {"messages": [SYSTEM] + DIALOGUE},
    "system only": {"messages": [SYSTEM]},
    "no generation prompt": {"messages": [SYSTEM] + DIALOGUE[:2], "add_generation_prompt": False},
    "continued": {"messages": [SYSTEM] + DIALOGUE[:2], "add_generation_prompt": False,
                  "continue_final_message": True},
    "continued blank": {"messages": [user("a"), assistant("Sure, \n")],
                        "add_generation_prompt": False, "continue_final_message": True},
    "wrong order": {"messages": DIALOGUE[1:]},
    "twice the user": {"messages": [user("a"), user("b")]},
    "twice the system": {"messages": [SYSTEM, SYSTEM] + DIALOGUE},
    "late system": {"messages": DIALOGUE + [SYSTEM]},
    "empty texts": {"messages": [user(""), assistant(""), user("")]},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, user("x")]},
    "unknown role": {"messages": [{"role": "critic", "content": "No."}, user("x")]},
    "tools": {"messages": [SYSTEM] + DIALOGUE, "tools": [WEATHER]},
    "tools no system": {"messages": DIALOGUE, "tools": [WEATHER, BARE, STRICT]},
    "no tools": {"messages": DIALOGUE, "tools": []},
    "tool dialogue": {"messages": TOOL_DIALOGUE, "tools": [WEATHER]},
    "tool dialogue without tools": {"messages": [SYSTEM] + TOOL_DIALOGUE},
    "tool answer last": {"messages": [SYSTEM] + TOOL_DIALOGUE[:3], "tools": [WEATHER]},
    "two calls": {"messages": TWO_CALLS, "tools": [WEATHER, BARE]},
    "two calls, more talk": {"messages": [SYSTEM] + TWO_CALLS + [assistant("ok"), user("thanks")],
                             "tools": [WEATHER, BARE]},
    "bad arguments": {"messages": [user("a"), assistant(None, tool_calls=[call("ping", "{oops")]),
                                   {"role": "tool", "content": "b", "tool_call_id": "abcdefgh1"}],
                      "tools": [BARE]},
    "reasoning": {"messages": [SYSTEM] + REASONED},
    "reasoning off": {"messages": REASONED, "chat_template_kwargs": {"enable_thinking": False,
                                                                    "thinking": False}},
    "reasoning on": {"messages": REASONED, "chat_template_kwargs": {"enable_thinking": True,
                                                                   "thinking": True}},
    "effort": {"messages": REASONED, "reasoning_effort": "high"},
    "no effort": {"messages": [SYSTEM] + DIALOGUE, "reasoning_effort": "none"},
    "reasoning before calls": {"messages": [SYSTEM, user("a"), assistant(
        "", reasoning="Let me ping.", tool_calls=[call("ping", "{}")]),
        {"role": "tool", "content": "pong", "tool_call_id": "abcdefgh1"}], "tools": [BARE]},
    "unicode": {"messages": UNICODE},
    "parts": {"messages": PARTS},
    "parts and tools": {"messages": [SYSTEM] + PARTS, "tools": [WEATHER]},
    "documents": {"messages": [SYSTEM] + DIALOGUE, "documents": DOCUMENTS},
    "kwargs": {"messages": [SYSTEM] + DIALOGUE, "tools": [WEATHER], "chat_template_kwargs": {
        "custom_tools": None, "tools_in_user_message": False, "date_string": "1 May 2025",
        "xml_tools": ["x"], "model_identity": "You are Q.", "add_vision_id": True}},
    "long": {"messages": [SYSTEM] + DIALOGUE[:2] * 40 + [user("end")]},
}
