"""Recordings on disk: recorded/epp/AREA/GROUP.json, a line per case; starts in one file."""

import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "recorded" / "epp"


def lines(entries):
    return [f'{"," if place else ""}{json.dumps(name)}: {json.dumps(entry, sort_keys=True)}'
            for place, (name, entry) in enumerate(entries.items())]


def write_file(path, origin, key, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = [f'{{"origin": {json.dumps(origin)},', f'"{key}": {{', *lines(entries), "}}"]
    path.write_text("\n".join(text) + "\n")


def write(area, origin, groups):
    starts = {name: records for name, records in groups.items()
              if set(records) & {"started", "refused"}}
    for name, records in groups.items():
        if name not in starts:
            write_file(FOLDER / area / f"{name}.json", origin, "cases", records)
    if starts:
        short = {name: next(iter(records)) for name, records in starts.items()}
        write_file(FOLDER / f"{area}.json", origin, "starts", short)


def read(area, group):
    """{case name: record}, as Runner.run returns it; None when nothing is recorded."""
    path = FOLDER / area / f"{group}.json"
    if path.exists():
        return json.loads(path.read_text())["cases"]
    starts = json.loads((FOLDER / f"{area}.json").read_text())["starts"]
    return {starts[group]: {"by": "the picker"}} if group in starts else None


def write_families(origin, found):
    write_file(FOLDER / "metric_families.json", origin, "families", found)


def read_families():
    return json.loads((FOLDER / "metric_families.json").read_text())["families"]


def origin():
    return json.loads((FOLDER / "startup.json").read_text())["origin"]
