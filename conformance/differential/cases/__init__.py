"""The cases, one module per area; each has GROUPS."""

import importlib

from cases.families import FAMILIES  # noqa: F401

AREAS = ("door", "responses", "parsers", "filters", "scorers", "choosing", "producers", "data",
         "startup")


def groups():
    """{area: [Group..]}"""
    return {area: importlib.import_module(f"cases.{area}").GROUPS for area in AREAS}
