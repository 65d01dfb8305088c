"""Docstrings stay plain: few relative clauses, in the package as a whole (CONTRIBUTING.md)."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "langsteer"
RELATIVE = {"that", "which", "whose", "where"}
MOST_IN_THOUSAND = 11
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def words_of_docstrings():
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, DOCUMENTED):
                yield from re.findall(r"[a-z']+", (ast.get_docstring(node) or "").lower())


def test_docstrings_have_few_relative_clauses():
    words = list(words_of_docstrings())
    share = 1000 * sum(word in RELATIVE for word in words) / len(words)
    assert share < MOST_IN_THOUSAND, "say it in two sentences, or name the thing"
