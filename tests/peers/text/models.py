"""Our chat templates and tokenizers against Python's, on what tools/text-models fetched.

    models.py [PEER]     PEER is the program text_peer, that of the release build by default
"""

import json
import pathlib
import random
import struct
import subprocess
import sys

import tokenizers

import reference

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODELS = ROOT / ".setup" / "text"
SPECIALS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token",
            "mask_token")
# (template, why): Python refuses or renders something else there, for the request named, and a
# prompt of ours does no harm.
KNOWN = {
    # It passes a generator on to tojson, which Python refuses; the engine answers 400.
    "llama-cpp-deepseek-r1": "Python refuses it",
    # It adds safe and plain strings, and Python escapes the plain ones for HTML.
    "meetkai-functionary-medium-v3.1": "HTML",
}
WORDS = """你好世界|、|です|hello| word|don't|I'LL|12345|3.14| über|日本語|。|，|中文测试|한국어|😀|
👩‍👩‍👧‍👦|e\u0301|\u0301|\u3000|\u00a0|/|//|(a)|[b]|{c}|==|...|!|</|Zażółć| עברית|مرحبا|हिन्दी|
ไทย|\u200b|'s|'|"|_x|CamelCase| A|B |\u2028|\x0b""".replace("\n", "").split("|")
WORDS += ["\n", "\n\n", " ", "  ", "\t", "\r\n", "?\n", "<|", "|>", "a" * 9, " " * 16]


class Peer:
    """Our side: see src/text/text_peer_main.cc."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, word, first, second, a, b=b""):
        """(ok, answer)"""
        to, back = self.process.stdin, self.process.stdout
        to.write(f"{word} {first} {second} {len(a)} {len(b)}\n".encode() + a + b)
        to.flush()
        outcome, size = back.readline().split()
        return outcome == b"ok", back.read(int(size))

    def encode(self, text, special=False):
        ok, answer = self.ask("encode", int(special), 0, text.encode())
        assert ok, answer
        return list(struct.unpack(f"={len(answer) // 4}I", answer))


def report(name, failures):
    if failures:
        print(*failures[:3], sep="\n")
        print(f"not ok {name}: {len(failures)} differ")
    else:
        print(f"ok {name}", flush=True)


def first_difference(want, got):
    at = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
    place = slice(max(0, at - 40), at + 60)
    return f"at {at}: wanted {want[place]!r}, got {got[place]!r}"


def special_tokens(config):
    tokens = {}
    for name in SPECIALS:
        value = config.get(name)
        value = value["content"] if isinstance(value, dict) else value
        if value is not None:
            tokens[name] = value
    return tokens


def templates():
    """(name, tokenizer_config.json, template)"""
    config = json.dumps({"bos_token": "<s>", "eos_token": "</s>"}).encode()
    for path in sorted((MODELS / "templates").glob("*.jinja")):
        yield path.stem, config, path.read_bytes().decode()
    for path in sorted(MODELS.glob("*/tokenizer_config.json")):
        text = path.read_bytes()
        if template := json.loads(text).get("chat_template"):
            yield path.parent.name, text, template


def check_template(peer, name, config, source):
    wanted = reference.Template(source, special_tokens(json.loads(config)))
    ok, answer = peer.ask("template", 0, 0, config, source.encode())
    if not ok:
        return [answer.decode()]
    failures = []
    if answer.decode() != ("openai" if wanted.parts else "string"):
        failures.append(f"{name}: format {answer.decode()}, wanted parts: {wanted.parts}")
    for case, request in reference.REQUESTS.items():
        try:
            want = wanted.render(request)
        except Exception as error:  # whatever a template may raise
            want = error
        body = json.dumps(request, ensure_ascii=False).encode()
        ok, answer = peer.ask("render", reference.NOW, 0, body)
        got = answer.decode()
        if isinstance(want, Exception):
            if ok and KNOWN.get(name) != "Python refuses it":
                failures.append(f"{name}, {case}: rendered, but Python raised {want!r}")
        elif not ok:
            failures.append(f"{name}, {case}: {got}")
        elif got != want and not (KNOWN.get(name) == "HTML" and "&#34;" in want):
            failures.append(f"{name}, {case}, {first_difference(want, got)}")
    return failures


def random_text(rng, markers):
    count = rng.choice([3, 50, 800, 3000])
    share = rng.choice([0, .02, .2])
    return "".join(rng.choice(markers if rng.random() < share else WORDS) for _ in range(count))


def check_tokenizer(peer, folder):
    json_text = (folder / "tokenizer.json").read_bytes()
    config = (folder / "tokenizer_config.json").read_bytes()
    wanted = tokenizers.Tokenizer.from_str(json_text.decode())
    wanted.no_truncation()
    wanted.no_padding()
    markers = [token["content"] for token in json.loads(json_text)["added_tokens"]]
    rng = random.Random(folder.name)
    texts = [random_text(rng, markers) for _ in range(60)]
    failures = []
    # A small cache that forgets, and a text beginning like the one before it.
    ok, answer = peer.ask("tokenizer", 1 << 20, 1, json_text, config)
    if not ok:
        return [answer.decode()]
    if not answer.startswith(b"fastokens"):
        failures.append(f"{folder.name}: {answer.decode()}")
    for before, text in zip(texts, texts[1:]):
        text = before + text
        for special in (False, True):
            want = wanted.encode(text, add_special_tokens=special).ids
            got = peer.encode(text, special)
            if got != want:
                failures.append(f"{folder.name}: {first_difference(want, got)}")
    return failures


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else ROOT / "build/release/tests/text_peer"
    peer = Peer(program)
    for name, config, source in templates():
        report(f"template {name}", check_template(peer, name, config, source))
    for path in sorted(MODELS.glob("*/tokenizer.json")):
        report(f"tokenizer {path.parent.name}", check_tokenizer(peer, path.parent))


main()
