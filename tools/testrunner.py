"""Runs every test of the project and counts every case; called by ./test.

A runner is one program that reports cases: a gtest binary, the tests of the Rust crate, an
integration test, a benchmark, tidy, a fuzz target. Integration tests are executables that print
one line per case:
    ok NAME | not ok NAME: why | skip NAME: reason
and anything else freely, which is shown when the case after it fails. They get LLMD (the binary),
LLMD_ROOT (the tree) and LLMD_TMP (an empty folder, removed afterwards) in the environment. Exit
status non-zero without a "not ok" is a failed case of its own, and so is a run without any case.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures

ROOT = pathlib.Path(__file__).resolve().parent.parent
JOBS = os.cpu_count() or 1
FUZZ_SECONDS = 5
# Longest a runner may take. Integration tests build nothing, real peers may (llama-server).
LIMIT_SECONDS = 600
PEER_LIMIT_SECONDS = 2400
FAILURE_LINES_MAX = 120
CRATE = "llmd-text"
CARGO_HOME = pathlib.Path(os.environ.get("CARGO_HOME", pathlib.Path.home() / ".cargo"))

START = time.monotonic()
print_lock = threading.Lock()
stopping = threading.Event()


def say(text):
    with print_lock:
        print(f"[{time.monotonic() - START:6.1f} s] {text}", flush=True)


@dataclasses.dataclass
class Case:
    name: str
    outcome: str  # passed, failed, skipped
    detail: str = ""


@dataclasses.dataclass
class Runner:
    name: str
    command: list
    parse: object  # (output, exit status, runner name) -> [Case]
    step: str
    env: dict = dataclasses.field(default_factory=dict)
    limit_s: int = LIMIT_SECONDS
    target: str = ""


def tail(text):
    lines = text.rstrip().splitlines()
    left_out = len(lines) - FAILURE_LINES_MAX
    if left_out > 0:
        lines[:left_out] = [f"... {left_out} lines left out"]
    return "\n".join(lines)


# --- parsers: one per kind of runner ------------------------------------------------------------

GTEST_LINE = re.compile(r"\[ {7}OK \] |\[  (?:FAILED|SKIPPED) {1,2}\] |\[ RUN {6}\] ")
GTEST_OUTCOME = {"OK": "passed", "FAILED": "failed", "SKIPPED": "skipped"}
GTEST_NAME = re.compile(r"\] ([\w./-]+)")


def parse_gtest(output, status, name):
    cases, running, detail = [], None, []
    for line in output.splitlines():
        match = GTEST_LINE.search(line)
        if not match:
            detail.append(line)
            continue
        if line[: match.start()]:
            detail.append(line[: match.start()])
        case = GTEST_NAME.search(line, match.start()).group(1)
        if "RUN" in match.group():
            running, detail = case, []
        elif case == running:
            outcome = GTEST_OUTCOME[match.group().strip("[] ")]
            reason = "\n".join(detail)
            if outcome == "skipped":
                reason = " ".join(l for l in detail if not l.endswith(": Skipped")).strip()
            cases.append(Case(f"{name} {case}", outcome, reason))
            running, detail = None, []
    if running:
        detail.insert(0, f"died here, status {status}")
        cases.append(Case(f"{name} {running}", "failed", "\n".join(detail)))
    elif status != 0 and not any(c.outcome == "failed" for c in cases):
        cases.append(Case(name, "failed", f"exit status {status} outside any test\n{output}"))
    return cases


CARGO_LINE = re.compile(r"^test (\S+) \.\.\. (ok|FAILED|ignored(?:, (.+))?)$")
CARGO_OUTCOME = {"ok": "passed", "FAILED": "failed"}
CARGO_DETAIL = re.compile(r"^---- (\S+) stdout ----\n(.*?)(?=^---- |^failures:$)", re.M | re.S)


def parse_cargo(output, status, name):
    details = dict(CARGO_DETAIL.findall(output))
    cases = []
    for match in filter(None, map(CARGO_LINE.match, output.splitlines())):
        case, word, reason = match.groups("")
        outcome = CARGO_OUTCOME.get(word, "skipped")
        cases.append(Case(f"{name} {case}", outcome, details.get(case, reason).strip()))
    if not any(case.outcome == "failed" for case in cases) and (status != 0 or not cases):
        cases.append(Case(name, "failed", f"exit status {status}\n{output}"))
    return cases


TAP_LINE = re.compile(r"^(ok|not ok|skip) (.+)$")


def parse_lines(output, status, name):
    cases, before = [], []
    for line in output.splitlines():
        match = TAP_LINE.match(line)
        if not match:
            before.append(line)
            continue
        kind, rest = match.groups()
        case, _, why = (rest, "", "") if kind == "ok" else rest.partition(": ")
        outcome = {"ok": "passed", "not ok": "failed", "skip": "skipped"}[kind]
        if outcome == "failed":
            why = "\n".join([*before, why])
        cases.append(Case(f"{name} {case}", outcome, why))
        before = []
    if not cases:
        cases.append(Case(name, "failed", f"reported no case, exit status {status}\n{output}"))
    elif status != 0 and not any(case.outcome == "failed" for case in cases):
        cases.append(Case(name, "failed", f"exit status {status}\n{output}"))
    return cases


def parse_whole(output, status, name):
    if status == 0:
        return [Case(name, "passed")]
    return [Case(name, "failed", f"exit status {status}\n{output}")]


# --- what there is to run -----------------------------------------------------------------------


def targets_of(preset, kind):
    path = ROOT / "build" / preset / f"all_{kind}.txt"
    return [line for line in path.read_text().split() if line] if path.exists() else []


def gtest_runner(preset, target, text, step):
    binary = ROOT / "build" / preset / "tests" / target
    label = target if preset == "release" else f"{preset}/{target}"
    command = [binary, "--gtest_color=no"]
    if text and text not in label:
        command.append(f"--gtest_filter=*{text}*")
    return Runner(label, command, parse_gtest, step, target=target)


def concurrent_rooms():
    lines = (ROOT / "src" / "floors.txt").read_text().splitlines()
    return {line.split()[1] for line in lines if re.match(r"\d+ ", line) and "[concurrent]" in line}


def scripts(folder):
    found = sorted((ROOT / folder).glob("*_test.py")) + sorted((ROOT / folder).glob("*_test.sh"))
    return [path for path in found if os.access(path, os.X_OK)]


def script_runner(path, step, limit_s=LIMIT_SECONDS):
    return Runner(str(path.relative_to(ROOT)), [path], parse_lines, step, limit_s=limit_s)


def bench_runner(target):
    binary = ROOT / "build" / "release" / "bench" / target
    return Runner(target, [binary, "--benchmark_min_time=0.001"], parse_whole, "benchmarks")


def fuzz_runner(target, scratch):
    binary = ROOT / "build" / "asan" / "fuzz" / target
    found = scratch / target
    crashes = ROOT / "build" / "asan" / "crashes" / target
    for folder in (found, crashes):
        folder.mkdir(parents=True, exist_ok=True)
    command = [binary, f"-max_total_time={FUZZ_SECONDS}", "-timeout=10", "-rss_limit_mb=2048",
               f"-artifact_prefix={crashes}/", "-verbosity=0", found]
    command += sorted((ROOT / "src").glob(f"*/corpus/{target}"))
    return Runner(f"fuzz {target}", command, parse_whole, "fuzz", target=target)


def cargo_runner(text):
    """The crate's own tests, with the library's profile: its dependencies are built already."""
    cargo = shutil.which("cargo") or shutil.which("cargo", path=CARGO_HOME / "bin") or "cargo"
    command = [cargo, "test", "--locked", "--release", "--lib", "--manifest-path",
               ROOT / "rust" / CRATE / "Cargo.toml", "--target-dir", ROOT / "build" / "rust"]
    command += ["--", "--color=never"]
    if text and text not in CRATE:
        command.append(text)
    return Runner(CRATE, command, parse_cargo, "unit")


def listed_crate(text):
    """Whether the crate has any test for the filter."""
    sources = (path.read_text() for path in (ROOT / "rust" / CRATE / "src").glob("*.rs"))
    names = re.findall(r"#\[test\]\s+fn (\w+)", "\n".join(sources))
    return not text or text in CRATE or any(text in name for name in names)


def tidy_runner():
    return Runner("tidy", [ROOT / "tools" / "tidy", "--cases"], parse_lines, "tidy")


# --- running ------------------------------------------------------------------------------------


def environment(runner, scratch):
    env = dict(os.environ)
    env.update(
        LLMD=str(ROOT / "build" / "release" / "llmd"), LLMD_ROOT=str(ROOT), LLMD_TMP=str(scratch),
        ASAN_OPTIONS="detect_stack_use_after_return=1:strict_string_checks=1",
        UBSAN_OPTIONS="print_stacktrace=1",
        TSAN_OPTIONS=f"suppressions={ROOT}/tools/tsan.supp:second_deadlock_stack=1",
        PYTHONDONTWRITEBYTECODE="1",
    )
    symbolizer = shutil.which("llvm-symbolizer-19")
    if symbolizer:
        env["ASAN_SYMBOLIZER_PATH"] = env["TSAN_SYMBOLIZER_PATH"] = symbolizer
    env.update(runner.env)
    return env


def execute(runner):
    """Runs one runner in a process group of its own and returns its cases."""
    if not pathlib.Path(runner.command[0]).exists():
        return [Case(runner.name, "failed", f"{runner.command[0]} was not built")]
    scratch = tempfile.mkdtemp(prefix="llmd-test-")
    begin = time.monotonic()
    output_path = pathlib.Path(scratch).with_suffix(".out")
    try:
        with open(output_path, "wb") as out:
            process = subprocess.Popen(
                [str(part) for part in runner.command], stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, env=environment(runner, scratch), cwd=ROOT,
                start_new_session=True)
            late = wait_with_heartbeat(process, runner, begin)
        output = output_path.read_text(errors="replace")
        cases = runner.parse(output, process.returncode, runner.name)
        if late:
            cases.append(Case(runner.name, "failed", f"stopped after {runner.limit_s} s\n{output}"))
        return cases
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        output_path.unlink(missing_ok=True)


def wait_with_heartbeat(process, runner, begin):
    """True when the runner had to be stopped; what it left running is ended in any case."""
    next_word, late = begin + 2, False
    while process.poll() is None:
        time.sleep(0.02)
        now = time.monotonic()
        if now > next_word:
            say(f"{runner.name}: still running, {now - begin:.0f} s")
            next_word = now + 10
        if now - begin > runner.limit_s or stopping.is_set():
            late = not stopping.is_set()
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(1)
            break
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
    return late


def count_outcomes(cases):
    return {word: sum(case.outcome == word for case in cases)
            for word in ("passed", "failed", "skipped")}


class Totals:
    def __init__(self):
        self.cases = []

    def add(self, runner, cases, seconds):
        self.cases += cases
        words = [f"{count} {word}" for word, count in count_outcomes(cases).items() if count]
        say(f"{runner.name}: {', '.join(words) or 'done'} ({seconds:.1f} s)")
        for case in cases:
            if case.outcome == "skipped":
                say(f"  skipped {case.name}: {case.detail or 'no reason given'}")
            elif case.outcome == "failed":
                say(f"  FAILED {case.name}")
                with print_lock:
                    print(tail(case.detail), flush=True)

    def close(self):
        count = count_outcomes(self.cases)
        for case in self.cases:
            if case.outcome == "failed":
                print(f"failed: {case.name}")
        line = f"{count['passed']} passed, {count['failed']} failed"
        print(line + (f", {count['skipped']} skipped" if count["skipped"] else ""), flush=True)
        return 1 if count["failed"] or not count["passed"] else 0


def run_all(runners, totals, jobs):
    def one(runner):
        if stopping.is_set():
            return
        begin = time.monotonic()
        cases = execute(runner)
        with totals_lock:
            totals.add(runner, cases, time.monotonic() - begin)

    totals_lock = threading.Lock()
    with futures.ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(one, runners))
        except BaseException:
            stopping.set()
            raise


def shell(*words):
    """Calls a function of lib.sh, which shows its progress; true when it succeeded."""
    script = f'set -eu; source "{ROOT}/tools/lib.sh"; "$@"'
    return subprocess.run(["bash", "-c", script, "test", *words], check=False).returncode == 0


def build(preset, targets, totals):
    """A failed build is one failed case; one that works is none."""
    begin = time.monotonic()
    works = shell("build", preset, *targets)
    runner = Runner(f"build {preset}", [], None, "build")
    cases = [] if works else [Case(runner.name, "failed", "its output is above")]
    totals.add(runner, cases, time.monotonic() - begin)
    return works


def wanted(runners, text):
    return [r for r in runners if not text or text in r.name]


def listed_cases(runner, text):
    """Whether a gtest runner has any case for the filter."""
    if not text or text in runner.name:
        return True
    command = [str(part) for part in runner.command] + ["--gtest_list_tests"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        return False
    return any(line.startswith("  ") for line in listing.splitlines())


def gtests(preset, targets, options):
    runners = [gtest_runner(preset, t, options.filter, "unit") for t in targets]
    return [r for r in runners if listed_cases(r, options.filter)]


def release_steps(options, totals):
    if not build("release", ["all"], totals):
        return
    run_all(gtests("release", targets_of("release", "test"), options), totals, JOBS)
    crate = [cargo_runner(options.filter)] if listed_crate(options.filter) else []
    run_all(crate, totals, 1)
    alone = [script_runner(p, "integration") for p in scripts("tests") + scripts("tools")]
    alone += [bench_runner(target) for target in targets_of("release", "bench")]
    run_all(wanted(alone, options.filter), totals, 1)


def sanitizer_steps(options, totals, scratch):
    asan_tests = options.all and not options.filter
    sources = (f"fuzz {path.stem}" for path in (ROOT / "src").rglob("*_fuzz.cc"))
    if options.filter and not any(options.filter in name for name in sources):
        return
    if not build("asan", ["all_fuzz"] + (["all_test"] if asan_tests else []), totals):
        return
    fuzzers = [fuzz_runner(t, scratch) for t in targets_of("asan", "fuzz")]
    run_all(wanted(fuzzers, options.filter), totals, JOBS)
    if asan_tests:
        run_all(gtests("asan", targets_of("asan", "test"), options), totals, JOBS)


def tsan_steps(options, totals):
    rooms = {f"{room}_test" for room in concurrent_rooms()}
    if not shell("configure", "tsan"):
        return
    targets = [t for t in targets_of("tsan", "test") if t in rooms]
    if targets and build("tsan", targets, totals):
        run_all(gtests("tsan", targets, options), totals, 1)


def peer_steps(options, totals):
    peers = [script_runner(p, "peers", PEER_LIMIT_SECONDS) for p in scripts("tests/peers")]
    run_all(wanted(peers, options.filter), totals, 1)


def list_runners(options):
    kinds = [("unit", targets_of("release", "test") + [CRATE]),
             ("integration", scripts("tests") + scripts("tools")),
             ("benchmark", targets_of("release", "bench")), ("tidy", ["tidy"]),
             ("fuzz", targets_of("asan", "fuzz"))]
    if options.all:
        kinds += [("asan", targets_of("asan", "test")), ("peers", scripts("tests/peers")),
                  ("tsan", [f"{r}_test" for r in sorted(concurrent_rooms())])]
    for kind, names in kinds:
        for name in names:
            print(f"{kind:12} {name}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("filter", nargs="?", default="")
    options = parser.parse_args()
    if options.list:
        list_runners(options)
        return 0
    totals = Totals()
    with tempfile.TemporaryDirectory(prefix="llmd-fuzz-") as scratch:
        release_steps(options, totals)
        run_all(wanted([tidy_runner()], options.filter), totals, 1)
        sanitizer_steps(options, totals, pathlib.Path(scratch))
        if options.all:
            if not options.filter:
                tsan_steps(options, totals)
            peer_steps(options, totals)
    return totals.close()


def stop(signum, frame):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, stop)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
