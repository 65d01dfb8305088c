"""Subpackages import downwards only, and no modules import in a circle (docs/architecture.md)."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "langsteer"

BELOW = {
    "calvin": set(),
    "data": {"calvin"},
    "policies": {"calvin", "data"},
    "training": {"calvin", "data", "policies"},
    "steering": {"calvin", "data", "policies"},
    "envs": {"calvin", "data"},
    "experts": {"calvin", "data", "envs"},
    "compat": {"calvin", "data", "envs", "experts"},
    "serving": {"calvin", "data", "envs", "policies", "compat"},
    "evaluation": {"calvin", "data", "policies", "steering", "envs", "experts", "serving"},
}
"""Each subpackage and those that it may import; all may import the tools."""

TOOLS = {
    *("claims", "command_line", "compiled", "configuration", "errors", "files", "inert_pickle"),
    *("html_page", "interruption", "loopback"),
    *("nesting", "processes", "progress", "provenance", "reading", "records", "resumable"),
    *("sentences", "settings", "threads"),
}
"""Modules beside the subpackages; they know nothing of CALVIN, and import each other only."""


def modules():
    """Name to file of every module of the package."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imported_names(tree):
    """What a module imports anywhere: at its top, within functions and for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports():
    """Module to the modules of the package that it imports."""
    found = modules()

    def module_of(name):
        return name if name in found else name.rpartition(".")[0]

    return {
        module: {module_of(name) for name in imported_names(ast.parse(file.read_text()))}
        & found.keys() - {module}
        for module, file in found.items()
    }


def subpackage_of(module):
    """The subpackage, or the module itself where it is in none."""
    return module.split(".")[1] if "." in module else module


@pytest.mark.parametrize("subpackage", sorted(BELOW.keys() | TOOLS))
def test_a_subpackage_imports_only_what_is_below_it(subpackage):
    own = {subpackage, "langsteer"}  # langsteer: the version
    allowed = own | TOOLS | BELOW.get(subpackage, set())
    edges = [
        (module, target)
        for module, targets in imports().items()
        for target in targets
        if subpackage_of(module) == subpackage
    ]
    assert subpackage in {subpackage_of(module) for module in imports()}
    wrong = {(module, target) for module, target in edges if subpackage_of(target) not in allowed}
    assert not wrong, f"{subpackage} imports one above it, or beside it"


def test_every_folder_of_the_package_is_a_subpackage():
    folders = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert folders == set(BELOW)


def test_only_commands_import_commands():
    commands = {subpackage_of(module) for module in imports()} - set(BELOW) - TOOLS - {"langsteer"}
    wrong = {
        (module, target)
        for module, targets in imports().items()
        for target in targets
        if subpackage_of(target) in commands and subpackage_of(module) not in commands
    }
    assert not wrong


def test_no_modules_import_each_other_in_a_circle():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
