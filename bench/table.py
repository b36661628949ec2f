"""The tables of docs/performance.md: one row per promise, ours beside a yardstick."""

import dataclasses
import os
import pathlib
import platform
import subprocess
import time

from stand import ROOT


@dataclasses.dataclass
class Row:
    name: str
    unit: str
    ours: float
    other: float = None
    ratio: float = None
    target: str = ""
    good: bool = True  # None: nothing to compare with
    note: str = ""

    def cells(self):
        def number(value, unit=""):
            if value is None:
                return ""
            size = abs(value)
            digits = 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 1 else 4
            return f"{value:.{digits}f}{' ' + unit if unit else ''}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return [self.name, number(self.ours, self.unit), number(self.other, self.unit), ratio,
                self.target, {True: "ok", False: "short", None: ""}[self.good], self.note]


def machine():
    model = "unknown CPU"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    commit = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"],
                            capture_output=True, text=True).stdout.strip()
    return {"cpu": f"{os.cpu_count()} x {model}", "kernel": platform.release().split("-")[0],
            "commit": commit or "unknown", "date": time.strftime("%Y-%m-%d")}


def markdown(rows, about, ours, other):
    """`about`: a line on what was measured where; then the table."""
    lines = [about, "", f"| | {ours} | {other} | ratio | target | | |",
             "|---|---|---|---|---|---|---|"]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    return "\n".join(lines) + "\n"
