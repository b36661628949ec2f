"""The official OpenAI SDK against the gateway; openai_sdk_test.sh and peers/llama_test.sh start it.

    openai_sdk.py sim                    over four simulated servers that it starts itself
    openai_sdk.py llama PORT PORT...     over engines that already run there, with a real model
"""

import contextlib
import sys

import openai

from harness import LLMD, Program, Skip, free_ports, report, wait_for_http

QUESTION = "What is the capital of France? Answer with one word."
KNOWN_ANSWERS = ("paris",)


class Target:
    def __init__(self, port, model, real):
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none",
                                    max_retries=0, timeout=120)
        self.model = model
        self.real = real  # a model that understands the question

    def check_text(self, text):
        assert text, "no text"
        if self.real:
            assert any(word in text.lower() for word in KNOWN_ANSWERS), f"unexpected answer: {text}"

    def check_usage(self, usage, tokens):
        assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= tokens, usage
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


def messages():
    return [{"role": "user", "content": QUESTION}]


def test_models(target):
    names = [model.id for model in target.client.models.list()]
    assert target.model in names and len(names) == len(set(names)), names


def test_chat(target):
    reply = target.client.chat.completions.create(
        model=target.model, messages=messages(), max_tokens=20, temperature=0)
    assert reply.choices[0].finish_reason in ("stop", "length")
    assert reply.choices[0].message.role == "assistant"
    target.check_text(reply.choices[0].message.content)
    target.check_usage(reply.usage, 20)


def test_chat_streamed(target):
    text, finish, usage, chunks = "", None, None, 0
    for chunk in target.client.chat.completions.create(
            model=target.model, messages=messages(), max_tokens=20, temperature=0, stream=True,
            stream_options={"include_usage": True}):
        chunks += 1
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert chunks > 2 and finish in ("stop", "length"), (chunks, finish)
    target.check_text(text)
    target.check_usage(usage, 20)


def test_completions(target):
    reply = target.client.completions.create(
        model=target.model, prompt="The capital of France is", max_tokens=8, temperature=0)
    target.check_text(reply.choices[0].text)
    target.check_usage(reply.usage, 8)


def test_completions_streamed(target):
    text = ""
    for chunk in target.client.completions.create(
            model=target.model, prompt="The capital of France is", max_tokens=8, temperature=0,
            stream=True):
        for choice in chunk.choices:
            text += choice.text
    target.check_text(text)


def test_many_at_once(target):
    streams = [target.client.chat.completions.create(
        model=target.model, messages=messages(), max_tokens=8, stream=True) for _ in range(8)]
    for stream in streams:
        assert any(choice.finish_reason for chunk in stream for choice in chunk.choices)


def test_unknown_model_is_an_openai_error(target):
    if target.real:
        raise Skip("llama-server answers for any model name")
    try:
        target.client.chat.completions.create(model="no-such-model", messages=messages())
    except openai.NotFoundError as error:
        assert "no-such-model" in str(error), error
    else:
        raise AssertionError("a model that nobody serves was answered")


def test_bad_request_is_an_openai_error(target):
    try:
        target.client.post("/chat/completions", body={"model": 7, "messages": []}, cast_to=object)
    except openai.BadRequestError as error:
        assert isinstance(error.body, dict) and error.body.get("message"), error.body
    else:
        raise AssertionError("a model that is no string was accepted")


def gateway(stack, engine_ports):
    port = free_ports(2)
    endpoints = ",".join(f"127.0.0.1:{engine}" for engine in engine_ports)
    program = stack.enter_context(Program(
        [LLMD, "gateway", "--listen", f"127.0.0.1:{port}", "--metrics-port", str(port + 1),
         "--endpoints", endpoints], "gateway"))
    wait_for_http(f"http://127.0.0.1:{port}/v1/models", program)
    return port


def main():
    kind, *ports = sys.argv[1:]
    tests = [test for name, test in globals().items() if name.startswith("test_")]
    with contextlib.ExitStack() as stack:
        if kind == "sim":
            first = free_ports(4)
            ports = range(first, first + 4)
            sim = stack.enter_context(Program(
                [LLMD, "sim", "--count", "4", "--port", first, "--model", "simulated"], "sim"))
            for port in ports:
                wait_for_http(f"http://127.0.0.1:{port}/health", sim)
        model = "simulated" if kind == "sim" else "smollm2"
        return report(tests, Target(gateway(stack, ports), model, kind == "llama"))


if __name__ == "__main__":
    sys.exit(main())
