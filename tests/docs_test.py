#!/usr/bin/env python3
"""The commands of README and the guides do what the text around them says, against `llmd up`."""

import json
import re
import subprocess
import sys

from harness import LLMD, ROOT, Program, free_ports, report, wait_for_http

PAGES = ["README.md", "docs/troubleshooting.md"]


def commands(words):
    """Every command on the pages that begins with `words`, inline or in a fenced block."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text().replace("\\\n", " ")
        fenced = re.findall(r"^```\n(.*?)^```", text, re.M | re.S)
        inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
        lines = [line for block in fenced for line in block.splitlines()] + inline
        found += [line.strip() for line in lines if line.strip().startswith(words)]
    return found


def main():
    port = free_ports(6)
    gateway, admin, engines = port, port + 1, port + 2
    up = [LLMD, "up", "--listen", f"127.0.0.1:{gateway}", "--metrics-port", admin, "--port",
          engines, "--count", 4, "--speedup", 5]

    def run(command, **replace):
        command = re.sub(r"^build/release/llmd", LLMD, command)
        command = command.replace(":8080", f":{gateway}").replace(":9090", f":{admin}")
        for word, value in replace.items():
            command = command.replace(word, value)
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True,
                              timeout=60)
        assert done.returncode == 0, f"{command}: {done.stderr.decode()[-500:]}"
        return done.stdout.decode()

    def decisions(query):
        return json.loads(run(f"curl -s 'http://127.0.0.1:9090/debug/decisions?{query}'"))["decisions"]

    with Program(up) as program:
        wait_for_http(f"http://127.0.0.1:{admin}/readyz", program)

        def test_the_first_curl_streams_a_chat():
            chats = [c for c in commands("curl -N") if "chat/completions" in c]
            assert chats, "README shows no streamed chat"
            for command in chats:
                output = run(command)
                assert output.startswith("data: {") and "data: [DONE]" in output, output

        def test_every_other_curl_answers():
            others = [c for c in commands("curl") if not c.startswith("curl -N")]
            assert len(others) >= 4, others
            request = decisions("last=1")[0]["request_id"]
            for command in others:
                assert run(command, REQUEST_ID=request), f"{command} printed nothing"

        def test_a_decision_is_found_by_its_request_id():
            request = decisions("last=1")[0]["request_id"]
            found = decisions(f"id={request}")
            assert [d["request_id"] for d in found] == [request], found
            assert len(found[0]["candidates"]) == 4, found

        def test_the_load_generator_reports():
            benches = commands("build/release/llmd bench")
            assert benches, "README shows no llmd bench"
            for command in benches:
                output = run(command + " --duration 1s --output-tokens 4")
                assert " 0 failed" in output, output

        def test_config_commands():
            assert "queue-scorer" in run(f"{LLMD} config print")
            sample = ROOT / "src/director/testdata/default.yaml"
            assert run(f"{LLMD} config check --config-file {sample} --endpoints-given") == ""
            schema = json.loads(run(f"{LLMD} config schema"))
            assert "2020-12" in schema["$schema"], schema.keys()

        return report([test_the_first_curl_streams_a_chat, test_every_other_curl_answers,
                       test_a_decision_is_found_by_its_request_id,
                       test_the_load_generator_reports, test_config_commands])


if __name__ == "__main__":
    sys.exit(main())
