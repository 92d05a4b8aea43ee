"""Faults made by cosmic-ray: one operator, number, flag or decorator of a file changed at a time."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

# One neighbour of each operator: what notices `a * b` for `a / b` notices `a >> b`. Annotations are no code.
_LEFT_OUT = re.compile(
    r"core/ReplaceBinaryOperator_(?!(Add_Sub|Sub_Add|Mul_Div|Div_Mul|Pow_Mul|BitAnd_BitOr)$)"
    r"|core/ReplaceComparisonOperator_"
    r"(?!(Lt_LtE|LtE_Lt|Gt_GtE|GtE_Gt|Eq_NotEq|NotEq_Eq|Is_IsNot|IsNot_Is|In_NotIn|NotIn_In)$)"
)

_SIGNATURE = ("parameters", "param", "lambdef")

Place = tuple[str, int]
"""A function of a file: its qualified name and its first line (a property and its setter share the name)."""


@dataclass(frozen=True)
class Fault:
    """One change: where, of which kind, the changed lines before and after, and the file's whole new text."""

    line: int
    kind: str
    before: str
    after: str
    text: str = field(repr=False)

    def __str__(self) -> str:
        return f"line {self.line}: {self.kind}\n    - {self.before}\n    + {self.after}"


def faults_of(source: str) -> list[Fault]:
    """All faults of a file, in the order of its lines; none is made that leaves the code as it was."""
    tree, whole = get_ast(source), _meaning_of(source)
    found: dict[str, Fault] = {}
    for name in operator_names():
        operator = get_operator(name)
        if _LEFT_OUT.match(name) or operator.arguments():
            continue
        positions = [
            (node, start) for node in ast_nodes(tree) for start, _ in operator().mutation_positions(node)
        ]
        for number, (node, (line, _)) in enumerate(positions):
            if getattr(node, "value", "") == "*" and node.parent.type in _SIGNATURE:  # no operator
                continue
            text = mutate_code(source, operator(), number)
            if _meaning_of(text) not in (None, whole):
                found.setdefault(text, Fault(line, name.removeprefix("core/"), *_lines(source, text), text))
    return sorted(found.values(), key=lambda fault: fault.line)


def _lines(source: str, text: str) -> tuple[str, str]:
    """The lines that differ, stripped and on one line each: before and after."""
    changed = [
        line
        for line in difflib.unified_diff(source.splitlines(), text.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]
    before, after = (" ".join(line[1:].strip() for line in changed if line[0] == sign) for sign in "-+")
    return before.strip(), after.strip()


def _meaning_of(source: str) -> tuple | None:
    try:
        return _meaning(compile(source, "", "exec"))
    except SyntaxError:  # `{**a}` for a power
        return None


def functions_of(code: CodeType) -> dict[Place, CodeType]:
    """The functions of a module and of its classes; one within a function belongs to that."""
    found: dict[Place, CodeType] = {}
    for part in _inner(code):
        if part.co_flags & inspect.CO_OPTIMIZED:
            found[part.co_qualname, part.co_firstlineno] = part
        else:
            found |= functions_of(part)
    return found


def changed_functions(path: Path, text: str) -> dict[Place, CodeType] | None:
    """What stands in a file's functions after a change; None if it changed what is done on import."""
    before, after = (compile(source, str(path), "exec") for source in (path.read_text(), text))
    old, new = functions_of(before), functions_of(after)
    if old.keys() != new.keys() or _meaning(before, functions=False) != _meaning(after, functions=False):
        return None
    changed = {place: new[place] for place in old if _meaning(old[place]) != _meaning(new[place])}
    if any(old[place].co_freevars != code.co_freevars for place, code in changed.items()):
        return None
    return changed


def _inner(code: CodeType) -> Iterator[CodeType]:
    return (constant for constant in code.co_consts if isinstance(constant, CodeType))


def _meaning(code: CodeType, functions: bool = True) -> tuple:
    """What code does, wherever it stands: its instructions, names and constants, and those within."""
    constants = [repr(constant) for constant in code.co_consts if not isinstance(constant, CodeType)]
    inner = [
        _meaning(part, functions)
        for part in _inner(code)
        if functions or not part.co_flags & inspect.CO_OPTIMIZED
    ]
    return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants, inner
