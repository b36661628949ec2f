"""A real Envoy before the picker: see README.md. Prints one line per case (tools/testrunner.py)."""

import asyncio
import functools
import os
import sys
import threading
import time
import traceback

import matrix
from stand import stand

from harness import report  # noqa: E402  (stand.py sets the path)

CASE_SECONDS = 60

OBJECTS = """
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: names}
spec:
  poolRef: {kind: InferencePool, name: default}
  rules:
  - matches: [{model: {value: public}}]
    targets: [{modelRewrite: private-version, weight: 1}]
"""


def with_trailers(text):
    """HTTP/1.1 has trailers only where they are asked for; HTTP/2 always has them."""
    text = text.replace("stat_prefix: inference\n",
                        "stat_prefix: inference\n" + " " * 10 +
                        "http_protocol_options: {enable_trailers: true}\n")
    return text.replace(
        "  - name: model_servers\n", "  - name: model_servers\n"
        "    typed_extension_protocol_options:\n"
        "      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:\n"
        '        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.'
        "HttpProtocolOptions\n"
        "        explicit_http_config: {http_protocol_options: {enable_trailers: true}}\n")


class Runner:
    """Cases are coroutines on one loop, in a thread of its own: model servers answer meanwhile."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.failed = 0
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.filter = sys.argv[1] if len(sys.argv) > 1 else ""

    def run(self, coroutine, seconds=CASE_SECONDS):
        return asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(coroutine, seconds), self.loop).result()

    def case(self, test, group, *arguments):
        @functools.wraps(test)
        def run():
            for value in arguments:
                value.forget()
            self.run(test(*arguments))
        run.__name__ = f"{group}: {test.__name__.removeprefix('test_')}".replace(": ", ".")
        if self.filter in run.__name__:
            self.failed += report([run])

    def group(self, group, tests, *arguments, **named):
        """All tests on one stand."""
        if not any(self.filter in f"{group}.{test.__name__}".replace("test_", "")
                   for test in tests):
            return
        made = stand(*arguments, name=group, **named)
        try:
            at = self.run(made.__aenter__())
        except Exception as error:
            traceback.print_exc(file=sys.stdout)
            print(f"not ok {group}: the stand did not start: {str(error).splitlines()[:1]}")
            self.failed += 1
            return
        at.reads_responses = at.sample != "response-bodies-not-sent"
        failed = self.failed
        for test in tests:
            self.case(test, group, at)
        if self.failed > failed:
            print("\n".join(["--- picker", *at.picker.output().splitlines()[-10:], "--- envoy",
                             *at.envoy.output().splitlines()[-10:]]))
        self.run(made.__aexit__(None, None, None))


def main():
    runner = Runner()
    objects = os.path.join(os.environ["LLMD_TMP"], "objects.yaml")
    with open(objects, "w", encoding="utf-8") as file:
        file.write(OBJECTS)
    plain = ["--secure-serving=false", "--objects-file", objects]
    for sample, flags in (("full-duplex", plain), ("response-bodies-not-sent", plain),
                          ("fallback", [*plain, "--fallback-endpoints=3"]),
                          ("tls", ["--objects-file", objects])):
        runner.group(sample, matrix.TESTS, sample, flags, with_trailers)
    return 1 if runner.failed else 0


if __name__ == "__main__":
    begin = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)
