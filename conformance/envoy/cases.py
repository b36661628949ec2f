"""A real Envoy before the picker: see README.md. Prints one line per case (tools/testrunner.py)."""

import asyncio
import functools
import re
import sys
import threading
import time
import traceback

import matrix
import trouble
from stand import TMP, stand

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
            for process in at.processes:
                process.show_end()
        self.run(made.__aexit__(None, None, None))


def access_log_of_metadata(text):
    chosen = "%DYNAMIC_METADATA(envoy.lb:x-gateway-destination-endpoint)%"
    return text.replace("stat_prefix: inference\n", f"""stat_prefix: inference
          access_log:
          - name: envoy.access_loggers.stdout
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog
              log_format: {{text_format_source: {{inline_string: "chosen={chosen}\\n"}}}}
""")


def few_streams(text):
    """The picker's cluster, which comes first."""
    return text.replace("max_requests: 40000", "max_requests: 4", 1)


def subset_of(new):
    """Puts another value in the place of the sample's list."""
    return lambda text: re.sub(r"(destination-endpoint-subset: )\[.*\]", rf"\g<1>{new(text)}", text)


def second_server(text):
    return re.search(r', "(127.0.0.1:\d+)"\]', text).group(1)


def one_sample_each(runner, plain):
    """What holds for every sample."""
    for sample, flags in (("full-duplex", plain), ("response-bodies-not-sent", plain),
                          ("fallback", [*plain, "--fallback-endpoints=3"]),
                          ("tls", plain[1:])):
        runner.group(sample, matrix.TESTS, sample, flags, with_trailers)


def one_trouble_each(runner, plain):
    t, full, walk = trouble, "full-duplex", ("fallback", [*plain, "--fallback-endpoints=3"])
    many = [t.test_2000_streams_at_once, t.test_2000_clients_that_leave_at_once]
    runner.group("many", many, full, plain)
    runner.group("many-not-shown", [*many, t.test_unread_replies_are_logged_once],
                 "response-bodies-not-sent", plain)
    runner.group("clients", [t.test_http2_clients, t.test_a_reply_outlasts_the_stream_timeout],
                 full, plain, lambda text: text.replace("timeout: 10s", "timeout: 1s"))
    runner.group("few", [t.test_a_circuit_breaker_opens], full, plain, few_streams)
    runner.group("death", [t.test_an_endpoint_dies], full, plain)
    runner.group("walk", [t.test_the_walk_keeps_the_order_and_the_body,
                          t.test_the_picker_learns_who_served,
                          t.test_a_dead_first_endpoint_is_passed], *walk)
    runner.group("reload", [t.test_the_config_is_reloaded_under_load,
                            t.test_a_bad_config_changes_nothing,
                            t.test_endpoints_come_and_go_under_load,
                            t.test_no_endpoint_is_left], full, plain)
    runner.group("sim", [t.test_simulated_servers], full, plain)
    runner.group("restart", [t.test_the_picker_is_restarted_under_load,
                             t.test_the_picker_is_killed_under_load,
                             t.test_without_a_picker], *walk[:1],
                 [*walk[1], "--drain-timeout=1s"])
    runner.group("drain", [t.test_sigterm_lets_streams_end], full,
                 [*plain, "--drain-timeout=5s"])
    runner.group("refusals", [t.test_errors_are_text, t.test_a_refusal_inside_the_upload,
                              t.test_the_budget_is_given_back], full,
                 [*plain, "--error-format=text", "--memory-budget=1Mi"])
    runner.group("subset", [t.test_metadata_names_a_subset, t.test_metadata_carries_the_choice],
                 "subset", plain, access_log_of_metadata)
    runner.group("subset-text", [t.test_a_subset_as_text], "subset", plain,
                 subset_of(second_server))
    runner.group("subset-strangers", [t.test_a_subset_of_strangers], "subset", plain,
                 subset_of(lambda _: '["127.0.0.1:1"]'))


def certificates(runner):
    folder = TMP / "pair"
    folder.mkdir()
    trouble.make_certificate(folder, 1001)

    async def test_a_certificate_is_replaced_under_load(at):
        await trouble.test_a_certificate_is_replaced_under_load(at, folder)
    runner.group("certificates", [test_a_certificate_is_replaced_under_load], "tls",
                 ["--cert-path", folder, "--enable-cert-reload"])


def main():
    runner = Runner()
    objects = TMP / "objects.yaml"
    objects.write_text(OBJECTS)
    plain = ["--secure-serving=false", "--objects-file", objects]
    one_sample_each(runner, plain)
    one_trouble_each(runner, plain)
    certificates(runner)
    return 1 if runner.failed else 0


if __name__ == "__main__":
    begin = time.monotonic()
    status = main()
    print(f"{time.monotonic() - begin:.0f} s")
    sys.exit(status)
