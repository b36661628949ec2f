#!/usr/bin/env python3
"""`llmd epp --check` takes our configurations, and upstream's samples load or say what is missing.

LLMD_REFERENCE_DIR names the folder with upstream's `epp` and its `configs/`; see
conformance/configs/README.md.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

from harness import LLMD, ROOT, Skip, free_ports, report

FOLDER = ROOT / "conformance/configs"
REFERENCE = os.environ.get("LLMD_REFERENCE_DIR", "")
SCRATCH = pathlib.Path(os.environ.get("LLMD_TMP", "/tmp"))
OWN = sorted(path for path in FOLDER.glob("*.yaml") if path.name != "endpoints.yaml")
SAMPLES = json.loads((FOLDER / "samples.json").read_text())
NOT_BUILT = re.compile(r'(?:plugin type|feature gate) "([\w-]+)" is part of llm-d but not built')
DISCOVERY = """- name: fleet-file
  type: file-discovery
  parameters: {path: conformance/configs/endpoints.yaml}
"""
UPSTREAM_SECONDS = 1.0  # a configuration that it refuses ends it in a tenth of that


def check(path):
    """(exit status, output) of --check."""
    done = subprocess.run([LLMD, "epp", "--check", "--allow-experimental-plugins", "--config-file",
                           path], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr + done.stdout


def starts_upstream(path):
    ports = free_ports(3)
    process = subprocess.Popen(
        [pathlib.Path(REFERENCE) / "epp", "--pool-name", "epp", "--config-file", path,
         "--allow-experimental-plugins", "--secure-serving=false", "--metrics-endpoint-auth=false",
         "--tracing=false", f"--grpc-port={ports}", f"--grpc-health-port={ports + 1}",
         f"--metrics-port={ports + 2}"], cwd=ROOT, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=dict(os.environ, GOMEMLIMIT="3GiB"))
    time.sleep(UPSTREAM_SECONDS)
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def with_discovery(text):
    """A sample with file discovery in place of Kubernetes'."""
    indent = re.search(r"^plugins:\n(?:\s*#.*\n)*( *)-", text, re.MULTILINE)[1]
    plugin = "".join(f"{indent}{line}\n" for line in DISCOVERY.splitlines())
    text = re.sub(r"^plugins:\n", f"plugins:\n{plugin}", text, count=1, flags=re.MULTILINE)
    if not re.search(r"^dataLayer:", text, re.MULTILINE):
        return text + "\ndataLayer:\n  discovery: {pluginRef: fleet-file}\n"
    return re.sub(r"^dataLayer:\n", "dataLayer:\n  discovery: {pluginRef: fleet-file}\n", text,
                  count=1, flags=re.MULTILINE)


def own_case(path):
    def test():
        status, output = check(path)
        assert status == 0, output

    def test_upstream():
        if not REFERENCE:
            raise Skip("LLMD_REFERENCE_DIR names no folder with `epp`")
        assert starts_upstream(path), "upstream refuses it"

    test.__name__ = f"test_{path.stem}"
    test_upstream.__name__ = f"test_{path.stem}_in_upstream"
    return [test, test_upstream]


def sample_case(sample):
    def test():
        if not REFERENCE:
            raise Skip("LLMD_REFERENCE_DIR names no folder with `configs/`")
        text = (pathlib.Path(REFERENCE) / "configs" / sample["file"]).read_text()
        path = SCRATCH / sample["file"]
        path.write_text(with_discovery(text))
        status, output = check(path)
        missing = NOT_BUILT.search(output)
        if not sample["waits_for"]:
            assert status == 0, output
        else:
            assert status != 0, "it loads: empty its waits_for"
            assert missing and missing[1] in sample["waits_for"], output

    test.__name__ = f"test_{sample['file'].removesuffix('.yaml')}"
    return test


def test_every_name_waited_for_is_not_built():
    names = {name for sample in SAMPLES for name in sample["waits_for"]}
    built = []
    for name in sorted(names - {"flowControl"}):
        path = SCRATCH / f"one-{name}.yaml"
        path.write_text("apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
                        f"{DISCOVERY}- type: {name}\n"
                        "dataLayer:\n  discovery: {pluginRef: fleet-file}\n")
        status, output = check(path)
        missing = NOT_BUILT.search(output)
        if status == 0 or not missing or missing[1] != name:
            built.append(name)
    assert not built, f"built by now, take out of samples.json: {', '.join(built)}"


def test_all_19_samples_are_listed():
    assert len(SAMPLES) == 19, len(SAMPLES)
    if REFERENCE:
        found = {path.name for path in (pathlib.Path(REFERENCE) / "configs").glob("*.yaml")}
        listed = {sample["file"] for sample in SAMPLES}
        assert found == listed, found ^ listed


if __name__ == "__main__":
    sys.exit(report([case for path in OWN for case in own_case(path)]
                    + [sample_case(sample) for sample in SAMPLES]
                    + [test_every_name_waited_for_is_not_built, test_all_19_samples_are_listed]))
