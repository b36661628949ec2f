#!/usr/bin/env python3
"""Tests of tools/tidy: small trees, each good but for one thing, and what is found in them."""

import importlib.machinery
import importlib.util
import pathlib
import shutil
import sys
import tempfile
import traceback

TOOLS = pathlib.Path(__file__).resolve().parent
sys.dont_write_bytecode = True
loader = importlib.machinery.SourceFileLoader("tidy", str(TOOLS / "tidy"))
tidy = importlib.util.module_from_spec(importlib.util.spec_from_loader("tidy", loader))
sys.modules["tidy"] = tidy
loader.exec_module(tidy)

FLOORS = """\
0 base Ground
1 wire Formats
1 text More formats
5 runtime Loops [concurrent]
edge text -> wire
"""
GOOD = {
    "NOTES.md": "Allow-lists stand in `tools/tidy.toml`.\n",
    "src/floors.txt": FLOORS,
    "src/base/CMakeLists.txt": "llmd_room(base)\n",
    "src/base/README.md": "Ground.\n",
    "src/base/a.h": "#pragma once\nint A();\n",
    "src/base/a.cc": '#include "base/a.h"\n\nint A() { return 1; }\n',
    "src/wire/CMakeLists.txt": "llmd_room(wire DEPS base)\n",
    "src/wire/README.md": "Formats.\n",
    "src/wire/w.h": '#pragma once\n#include "base/a.h"\nint W();\n',
    "src/wire/w.cc": '#include "wire/w.h"\n\nint W() { return A(); }\n',
    "src/runtime/CMakeLists.txt": "llmd_room(runtime)\n",
    "src/runtime/README.md": "Loops.\n",
    "src/runtime/clock.h": "#pragma once\nint Now();\n",
    "src/runtime/clock.cc": '#include "runtime/clock.h"\n\nint Now() { return clock_gettime(); }\n',
}


def findings(changes):
    """(rule, path, line) of what tidy finds in the good tree with `changes` (None deletes)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="llmd-tidy-"))
    try:
        files = {**GOOD, "tools/tidy.toml": (TOOLS / "tidy.toml").read_text(), **changes}
        for path, text in files.items():
            if text is not None:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(text)
        tree = tidy.Tree(folder)
        return [(f.rule, f.path, f.line) for f in tidy.check(tree)]
    finally:
        shutil.rmtree(folder)


def expect(changes, *wanted):
    found = findings(changes)
    assert sorted(found) == sorted(wanted), f"found {found}, wanted {list(wanted)}"


def cc(code):
    """Changes that put `code` into a source file of room wire."""
    return {"src/wire/w.cc": '#include "wire/w.h"\n' + code}


def test_good_tree_has_no_findings():
    expect({})


def test_floors_go_down_only():
    expect({"src/base/a.cc": '#include "base/a.h"\n#include "wire/w.h"\n',
            "src/base/CMakeLists.txt": "llmd_room(base\n  DEPS wire)\n"},
           ("floors", "src/base/a.cc", 2), ("floors", "src/base/CMakeLists.txt", 2))


def test_edges_allow_one_direction():
    text = {"src/text/CMakeLists.txt": "llmd_room(text DEPS wire)\n", "src/text/README.md": "x\n",
            "src/text/t.cc": '#include "wire/w.h"\n'}
    expect(text)
    back = {**text, "src/wire/w.cc": '#include "wire/w.h"\n#include "text/t.h"\n',
            "src/text/t.h": "#pragma once\n",
            "src/wire/CMakeLists.txt": "llmd_room(wire DEPS base text)\n"}
    expect(back, ("floors", "src/wire/w.cc", 2), ("floors", "src/wire/CMakeLists.txt", 1))


def test_edges_make_no_cycle_and_stay_on_a_floor():
    expect({"src/floors.txt": FLOORS + "edge wire -> text\n"},
           ("edges", "src/floors.txt", 1), ("edges", "src/floors.txt", 1))
    expect({"src/floors.txt": FLOORS + "edge base -> wire\n"}, ("edges", "src/floors.txt", 1))


def test_room_that_is_not_in_floors():
    expect({"src/attic/a.cc": "int x;\n"}, ("rooms", "src/attic/a.cc", 1))


def test_room_needs_readme_and_cmake():
    expect({"src/wire/README.md": None}, ("rooms", "src/wire/README.md", 1))


def test_includes_exist_and_are_quoted():
    expect(cc('#include "wire/gone.h"\n'), ("includes", "src/wire/w.cc", 2))
    expect(cc('#include "vector"\n'), ("includes", "src/wire/w.cc", 2))
    expect(cc("#include <base/a.h>\n"), ("includes", "src/wire/w.cc", 2))
    expect(cc('#include "gtest/gtest.h"\n'))


def test_commented_include_is_none():
    expect(cc('// #include "runtime/clock.h"\n/*\n#include "wire/gone.h"\n*/\n'))


def test_missing_dependency():
    expect({"src/wire/CMakeLists.txt": "llmd_room(wire)\n"}, ("deps", "src/wire/w.h", 2))


def test_unused_dependency():
    expect({"src/runtime/CMakeLists.txt": "# rooms\nllmd_room(runtime DEPS base)\n"},
           ("deps", "src/runtime/CMakeLists.txt", 2))


def test_dependency_of_tests_only():
    test = {"src/runtime/clock_test.cc": '#include "wire/w.h"\n'}
    expect(test, ("deps", "src/runtime/clock_test.cc", 1))
    expect({**test, "src/runtime/CMakeLists.txt": "llmd_room(runtime TEST_DEPS wire)\n"})
    expect({**test, "src/runtime/CMakeLists.txt": "llmd_room(runtime DEPS wire)\n"},
           ("deps", "src/runtime/CMakeLists.txt", 1))


def test_extra_links_count_as_dependencies():
    expect({"src/runtime/CMakeLists.txt":
            "llmd_room(runtime)\ntarget_link_libraries(x PRIVATE llmd_wire)\n"},
           ("deps", "src/runtime/CMakeLists.txt", 2))


def test_precompiled_headers_are_included_all_the_same():
    listed = {"cmake/llmd_precompiled.cmake":
              (TOOLS.parent / "cmake/llmd_precompiled.cmake").read_text(),
              "NOTES.md": "`tools/tidy.toml`, `cmake/llmd_precompiled.cmake`\n"}
    expect({**listed, **cc("std::vector<int> v;\n")}, ("std-headers", "src/wire/w.cc", 2))
    expect({**listed, **cc("#include <vector>\nstd::vector<int> v;\n")})
    below = {"src/base/a.h": "#pragma once\n#include <vector>\nint A();\n"}
    expect({**listed, **below, **cc("std::vector<int> v;\n")})
    one_less = {path: text.replace("<deque> ", "") for path, text in listed.items()}
    expect(one_less, ("std-headers", "cmake/llmd_precompiled.cmake", 1))


def test_heavy_header_in_header():
    expect({"src/wire/w.h": '#pragma once\n#include <nlohmann/json.hpp>\n#include "base/a.h"\n'},
           ("heavy-headers", "src/wire/w.h", 2))
    expect(cc("#include <nlohmann/json.hpp>\n"))


def test_io_headers_only_above_the_line():
    expect(cc("#include <sys/socket.h>\n"), ("io-line", "src/wire/w.cc", 2))
    expect({"src/runtime/clock.cc": '#include <sys/socket.h>\n#include "runtime/clock.h"\n'})


def test_each_ban_finds_its_thing():
    code = {
        "clock": "auto t = std::chrono::steady_clock::now();",
        "randomness": "std::random_device d;",
        "sockets": "int fd = ::socket(1, 2, 3);", "threads": "std::thread t(f);",
        "locks": "std::mutex m;", "sleeping": "std::this_thread::sleep_for(x);",
        "throw": "throw 1;", "catch": "try { f(); } catch (...) {}",
        "environment": "getenv(x);",
        "files": "std::ifstream in(path);", "processes": "popen(x);", "exit": "exit(1);",
        "regex": "std::regex r;", "printing": "std::cout << 1;", "memory": "X* x = new X;",
        "bytes": "atoi(x);", "language": "assert(x);", "using-namespace": "using namespace std;",
        "coroutines": "co_await x;",
    }
    bans = {ban["rule"] for ban in tidy.Tree(TOOLS.parent).config["ban"]}
    assert bans == set(code), f"bans without a test: {bans ^ set(code)}"
    for name, line in code.items():
        expect(cc(f"int x;\nvoid F() {{ {line} }}\n"), (name, "src/wire/w.cc", 3))


def test_bans_see_code_only():
    expect(cc('// throw, new X, std::mutex\nconst char* k = "throw std::mutex";\n'
              'const char* r = R"(\ngoto x; "quoted" )";\nchar c = \'"\'; int n = 1\'000\'000;\n'))


def test_allow_lists():
    expect({"src/runtime/other.cc": "int F() { return clock_gettime(); }\n"},
           ("clock", "src/runtime/other.cc", 1))
    expect({"src/runtime/lock.cc": "std::mutex m;\n"})


def test_ownership_given_at_once_is_fine():
    expect(cc("auto Make() { return std::unique_ptr<X>(new X(1)); }\nvoid* p = new (m) X;\n"))


def test_tests_may_use_threads_but_not_sleep():
    expect({"src/wire/w_test.cc": "std::thread t(f);\nvoid F() { usleep(3); }\n"},
           ("sleeping", "src/wire/w_test.cc", 2))


def test_unfinished_and_machine_words():
    expect(cc("// TO" + "DO: later\n"), ("unfinished", "src/wire/w.cc", 2))
    expect({"src/wire/README.md": "See /wor" + "k/main.\n"},
           ("machine-words", "src/wire/README.md", 1))
    expect(cc('const char* k = "a/wor' + 'k/b";\n'))


def test_columns():
    expect(cc("//" + "x" * 98 + "\n"))
    expect(cc("//" + "x" * 99 + "\n"), ("columns", "src/wire/w.cc", 2))
    expect(cc("int x; \n\tint y;\nint z;"), ("columns", "src/wire/w.cc", 2),
           ("columns", "src/wire/w.cc", 3), ("columns", "src/wire/w.cc", 4))


def test_headers():
    expect({"src/wire/w.h": '#include "base/a.h"\n'}, ("headers", "src/wire/w.h", 1))
    expect({"src/wire/lonely.h": "#pragma once\n"}, ("headers", "src/wire/lonely.h", 1))


def long_function(lines, head="void Long()"):
    return head + " {\n" + "  f();\n" * (lines - 2) + "}\n"


def test_function_length():
    expect(cc(long_function(70)))
    expect(cc("\n" + long_function(71)), ("function-length", "src/wire/w.cc", 3))
    expect(cc("namespace a {\nclass B {\n  " + long_function(71) + "};\n}\n"),
           ("function-length", "src/wire/w.cc", 4))


def test_functions_are_told_from_other_braces():
    code = ("struct S : Base<int> {\n  int a = 1;\n  S(int x) : a(x), b{x} {\n    g();\n  }\n};\n"
            "const int kTable[] = {1, 2};\n"
            "template <class T>\nauto F(T t) -> int {\n  auto l = [&] { h({1}); };\n"
            "  if (t) { x(); }\n}\n"
            "#define M(x) do { \\\n } while (0)\n"
            "TEST(Room, Case) {\n}\nbool operator==(A a, B b) {\n}\n")
    names = [(name, count) for name, _, count in tidy.functions(tidy.blank_literals(code))]
    assert names == [("S", 3), ("F", 5), ("Room.Case", 2), ("operator==", 2)], names


def test_ratchet_holds_and_only_shrinks():
    ratchet = lambda n: {"tools/tidy.ratchet": f"# why\nfunction-length src/wire/w.cc Long {n}\n",
                         "README.md": "`tools/tidy.ratchet`\n"}
    expect({**cc(long_function(80)), **ratchet(80)})
    expect({**cc(long_function(81)), **ratchet(80)}, ("function-length", "src/wire/w.cc", 2))
    expect({**cc(long_function(79)), **ratchet(80)}, ("function-length", "tools/tidy.ratchet", 2))
    expect({**cc(long_function(60)), **ratchet(80)}, ("function-length", "tools/tidy.ratchet", 2))


def test_lowering_the_ratchet():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="llmd-tidy-"))
    try:
        for path, text in {**GOOD, **cc(long_function(79))}.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        (folder / "tools").mkdir()
        shutil.copy(TOOLS / "tidy.toml", folder / "tools")
        ratchet = folder / "tools/tidy.ratchet"
        ratchet.write_text("# why\nfile-length src/wire/gone.cc - 2000\n"
                           "function-length src/wire/w.cc Long 90\n")
        tidy.lower_ratchet(tidy.Tree(folder))
        assert ratchet.read_text() == "# why\nfunction-length src/wire/w.cc Long 79\n"
    finally:
        shutil.rmtree(folder)


def test_file_length():
    expect(cc("\n" * 1000), ("file-length", "src/wire/w.cc", 1))


def test_fuzz_targets_have_seeds():
    fuzz = {"src/wire/w_fuzz.cc": "int x;\n"}
    expect(fuzz, ("fuzz-corpus", "src/wire", 1))
    expect({**fuzz, "src/wire/corpus/w_fuzz/seed": "1"})
    expect({"src/wire/corpus/old_fuzz/seed": "1"},
           ("fuzz-corpus", "src/wire/corpus/old_fuzz/seed", 1))


def test_unused_files():
    expect({"tools/forgotten.sh": "#!/bin/sh\n"}, ("unused", "tools/forgotten.sh", 1))
    expect({"tools/known.sh": "#!/bin/sh\n", "README.md": "Use `tools/known.sh`.\n"})
    expect({"src/wire/testdata/page.txt": "x\n"}, ("unused", "src/wire/testdata/page.txt", 1))


def test_documents_name_what_exists():
    expect({"README.md": "Run `tools/gone --fast` now.\n"}, ("docs", "README.md", 1))
    expect({"README.md": "Add `src/NAME/README.md` and `tests/*_test.sh`.\n"})
    expect({"README.md": "See [more](docs/gone.md).\n"}, ("docs", "README.md", 1))
    main = {"src/floors.txt": FLOORS + "8 main Start\n", "src/main/README.md": "x\n",
            "src/main/CMakeLists.txt": "llmd_room(main)\n", "src/main/m.cc": 'auto k = "up";\n'}
    expect({**main, "README.md": "```\nbuild/release/llmd up --count 4\n```\n"})
    expect({**main, "README.md": "\nTry `llmd down`.\n"}, ("docs", "README.md", 2))


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
            except Exception:
                failures += 1
                traceback.print_exc(file=sys.stdout)
                print(f"not ok {name[5:]}: see the lines above")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
