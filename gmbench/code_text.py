"""A text form of Python code in which comments, docstrings, layout and the interpreter's version do not show."""

from __future__ import annotations

import ast

# Where a name is read or written follows from its place; a type comment is a comment; `kind` is the u of u"text".
_SILENT = ("ctx", "kind", "type_comment")


def code_text(source: str) -> str:
    """A text that is equal for two sources exactly when they parse to the same code, docstrings apart.

    The same on every Python that can parse the source: fields are named and sorted, and left out where they are empty,
    since versions add fields (3.12: `type_params`); adjacent constants of an f-string are merged, since versions split
    them differently; strings are spelled in ASCII, since what `repr` holds printable grows with Unicode.

    Raises:
        SyntaxError: The source does not parse.
    """
    return _text(ast.parse(source))


def _text(node: object) -> str:
    if isinstance(node, ast.AST):
        fields = {name: value for name, value in ast.iter_fields(node) if name not in _SILENT}
        if isinstance(body := fields.get("body"), list):
            fields["body"] = [statement for statement in body if not _is_bare_string(statement)]
        if isinstance(node, ast.JoinedStr):
            fields["values"] = _merged(node.values)
        inner = (f"{name}={_text(value)}" for name, value in sorted(fields.items()) if not _is_empty(value))
        return f"{type(node).__name__}({','.join(inner)})"
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    return ascii(node)


def _is_empty(value: object) -> bool:
    return value is None or value == []


def _is_bare_string(statement: ast.stmt) -> bool:
    """A docstring of a module, a class, a function or a field: it does nothing."""
    if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
        return False
    return isinstance(statement.value.value, str)


def _merged(parts: list[ast.expr]) -> list[ast.expr]:
    merged: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            before = merged[-1] if merged else None
            if isinstance(before, ast.Constant) and isinstance(before.value, str):
                merged[-1] = ast.Constant(before.value + part.value)
            elif part.value:
                merged.append(part)
        else:
            merged.append(part)
    return merged
