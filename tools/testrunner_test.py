#!/usr/bin/env python3
"""Tests of tools/testrunner.py: what it reads out of the output of each kind of runner."""

import contextlib
import io
import pathlib
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import testrunner

GTEST = """\
[==========] Running 4 tests from 1 test suite.
[ RUN      ] Room.Works
[       OK ] Room.Works (0 ms)
[ RUN      ] Room.Breaks
src/room/x_test.cc:12: Failure
Expected equality of these values:
chatter without newline[  FAILED  ] Room.Breaks (1 ms)
[ RUN      ] Room.Waits
src/room/x_test.cc:20: Skipped
no network here

[  SKIPPED ] Room.Waits (0 ms)
[ RUN      ] All/Room.Each/0
[       OK ] All/Room.Each/0 (0 ms)
[==========] 4 tests from 1 test suite ran. (1 ms total)
[  PASSED  ] 2 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] Room.Waits
[  FAILED  ] 1 test, listed below:
[  FAILED  ] Room.Breaks
"""


def outcomes(cases):
    return [(case.name, case.outcome) for case in cases]


def test_gtest_counts_every_case_once():
    cases = testrunner.parse_gtest(GTEST, 1, "room_test")
    assert outcomes(cases) == [
        ("room_test Room.Works", "passed"), ("room_test Room.Breaks", "failed"),
        ("room_test Room.Waits", "skipped"), ("room_test All/Room.Each/0", "passed")], cases
    assert "Expected equality" in cases[1].detail and "chatter" in cases[1].detail
    assert cases[2].detail == "no network here", cases[2].detail


CARGO = """\
   Compiling room v0.1.0
running 3 tests
test a::works ... ok
test a::breaks ... FAILED
test a::waits ... ignored, no network here

failures:

---- a::breaks stdout ----
thread 'a::breaks' panicked at src/a.rs:3:5:
left is not right

failures:
    a::breaks

test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out
"""


def test_cargo_counts_every_case_and_shows_what_failed():
    cases = testrunner.parse_cargo(CARGO, 101, "room")
    assert outcomes(cases) == [("room a::works", "passed"), ("room a::breaks", "failed"),
                               ("room a::waits", "skipped")], cases
    assert "left is not right" in cases[1].detail and "failures" not in cases[1].detail
    assert cases[2].detail == "no network here", cases[2].detail


def test_cargo_that_does_not_compile_or_runs_nothing_is_a_failure():
    cases = testrunner.parse_cargo("error[E0659]: ambiguous\n", 101, "room")
    assert outcomes(cases) == [("room", "failed")] and "E0659" in cases[0].detail
    assert outcomes(testrunner.parse_cargo("running 0 tests\n", 0, "room")) == [("room", "failed")]


def test_gtest_that_dies_fails_the_running_case():
    output = ("[ RUN      ] Room.Works\n[       OK ] Room.Works (0 ms)\n"
              "[ RUN      ] Room.Dies\nboom\n")
    cases = testrunner.parse_gtest(output, -11, "t")
    assert outcomes(cases) == [("t Room.Works", "passed"), ("t Room.Dies", "failed")]
    assert "boom" in cases[1].detail


def test_gtest_that_fails_outside_cases_is_a_failure():
    output = "[ RUN      ] Room.Works\n[       OK ] Room.Works (0 ms)\nleak\n"
    cases = testrunner.parse_gtest(output, 1, "t")
    assert outcomes(cases) == [("t Room.Works", "passed"), ("t", "failed")]
    assert outcomes(testrunner.parse_gtest("", 127, "t")) == [("t", "failed")]


def test_lines():
    cases = testrunner.parse_lines("hello\nok a b\nnot ok c: why: so\nskip d: no npm\n", 1, "s")
    assert outcomes(cases) == [("s a b", "passed"), ("s c", "failed"), ("s d", "skipped")]
    assert cases[1].detail == "why: so" and cases[2].detail == "no npm"


def test_lines_before_a_failure_belong_to_it():
    output = "starting\nok a\nlistening\ntimed out\nnot ok b: no reply\nbye\n"
    cases = testrunner.parse_lines(output, 1, "s")
    assert cases[1].detail == "listening\ntimed out\nno reply", cases[1].detail


def test_lines_without_verdict_fail():
    cases = testrunner.parse_lines("ok a\n", 3, "s")
    assert outcomes(cases) == [("s a", "passed"), ("s", "failed")]
    assert outcomes(testrunner.parse_lines("", 0, "s")) == [("s", "failed")]


def test_whole():
    assert outcomes(testrunner.parse_whole("", 0, "f")) == [("f", "passed")]
    assert outcomes(testrunner.parse_whole("crash", 77, "f")) == [("f", "failed")]


def test_execute_reports_output_timeouts_and_missing_programs():
    run = lambda script, limit: testrunner.execute(testrunner.Runner(
        "r", ["/bin/sh", "-c", script], testrunner.parse_lines, "s", limit_s=limit))
    assert outcomes(run("echo ok a", 10)) == [("r a", "passed")]
    assert outcomes(run("test -d $LLMD_TMP && echo ok tmp", 10)) == [("r tmp", "passed")]
    late = run("echo ok a; sleep 60", 0.2)
    assert late[-1].outcome == "failed" and "stopped after" in late[-1].detail
    missing = testrunner.execute(testrunner.Runner("r", ["/nowhere"], testrunner.parse_lines, "s"))
    assert outcomes(missing) == [("r", "failed")]


def closing_line(cases):
    totals = testrunner.Totals()
    totals.cases = [testrunner.Case("x", outcome) for outcome in cases]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = totals.close()
    return out.getvalue().splitlines()[-1], status


def test_closing_line():
    assert closing_line(["passed", "passed"]) == ("2 passed, 0 failed", 0)
    assert closing_line(["passed", "failed", "skipped"]) == ("1 passed, 1 failed, 1 skipped", 1)
    assert closing_line([]) == ("0 passed, 0 failed", 1)


def main():
    failures = 0
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                test()
                print(f"ok {name[5:]}")
            except AssertionError as error:
                failures += 1
                print(f"not ok {name[5:]}: {error}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
