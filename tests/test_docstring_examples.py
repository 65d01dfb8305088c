"""Calls in the modules' examples fit the signatures of what they call."""

import ast
import importlib
import inspect
import re
import textwrap
import typing
from pathlib import Path

import pytest

from langsteer.errors import UserError

PACKAGE = Path(__file__).resolve().parents[1] / "langsteer"


def example_of(docstring):
    """The Python under ``Example::``, as a tree; None where it is a command line or nothing."""
    found = re.search(r"^Example.*::\n\n((?:    .*\n|\n)+)", docstring + "\n", re.MULTILINE)
    try:
        return ast.parse(textwrap.dedent(found[1])) if found else None
    except SyntaxError:
        return None


def examples():
    """Name of each module with an example, and the example."""
    for file in sorted(PACKAGE.rglob("*.py")):
        tree = example_of(ast.get_docstring(ast.parse(file.read_text())) or "")
        if tree is not None:
            yield ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts), tree


EXAMPLES = dict(examples())


class Reader(ast.NodeVisitor):
    """Follows an example: the types of its variables, and the calls that fit no signature."""

    def __init__(self, names):
        self.names, self.types, self.faults, self.checked = names, {}, [], 0

    def target(self, node):
        """What an expression names, and whether it is a method called on an instance."""
        if isinstance(node, ast.Name):
            return self.names.get(node.id), False
        if not isinstance(node, ast.Attribute):
            return None, False
        owner = self.type_of(node.value)
        if owner is not None:
            found = inspect.getattr_static(owner, node.attr, None)
            is_field = f"self.{node.attr}" in inspect.getsource(owner)
            if found is None and not is_field and node.attr not in inspect.get_annotations(owner):
                self.faults.append(f"{owner.__name__} has no {node.attr}")
            return getattr(owner, node.attr, None), inspect.isfunction(found)
        holder, _ = self.target(node.value)
        return getattr(holder, node.attr, None), False

    def type_of(self, node):
        """The class of ours that an expression is an instance of, as far as known."""
        if isinstance(node, ast.Name):
            return self.types.get(node.id)
        if not isinstance(node, ast.Call):
            return None
        called, _ = self.target(node.func)
        if not inspect.isclass(called):
            try:
                called = typing.get_type_hints(called).get("return")
            except (TypeError, NameError):
                return None
        ours = inspect.isclass(called) and called.__module__.startswith("langsteer.")
        return called if ours and not typing.is_typeddict(called) else None

    def visit_Assign(self, node):
        self.visit(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.types[target.id] = self.type_of(node.value)

    def visit_With(self, node):
        for item in node.items:
            self.visit(item.context_expr)
            if isinstance(item.optional_vars, ast.Name):
                self.types[item.optional_vars.id] = self.type_of(item.context_expr)
        for statement in node.body:
            self.visit(statement)

    def visit_Call(self, node):
        self.generic_visit(node)
        called, is_method = self.target(node.func)
        ours = getattr(called, "__module__", None) or ""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        is_cut = any(isinstance(one, ast.Constant) and one.value is ... for one in given)
        if not ours.startswith("langsteer.") or is_cut or not callable(called):
            return
        is_error = inspect.isclass(called) and issubclass(called, BaseException)
        starred = any(isinstance(one, ast.Starred) for one in node.args)
        if is_error or starred or any(keyword.arg is None for keyword in node.keywords):
            return
        self.checked += 1
        try:
            positional = [None] * (len(node.args) + is_method)
            inspect.signature(called).bind(*positional, **{k.arg: None for k in node.keywords})
        except TypeError as error:
            self.faults.append(f"{ast.unparse(node)}: {error}")


def read(name):
    """The example of a module, followed."""
    reader = Reader(vars(importlib.import_module(name.removesuffix(".__init__"))))
    reader.visit(EXAMPLES[name])
    return reader


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_fits_the_signatures(name):
    try:
        reader = read(name)
    except (ModuleNotFoundError, UserError) as error:  # an extra that is not installed
        pytest.skip(str(error))
    assert not reader.faults
