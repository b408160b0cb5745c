"""C alone: an element by index or by pointer."""

from __future__ import annotations

from collections.abc import Iterator

from attacks.style.brace_values import exposes_macro, is_primary
from attacks.style.form import Change, Form
from attacks.style.trees import field, of, peeled, text
from bench.languages import Program
from bench.samples import Edit


def to_pointers(program: Program) -> Iterator[Change]:
    """``a[i]`` → ``(*(a + i))``: the same by definition (C11 6.5.2.1).

    A compiler's vector types are no arrays: there it would not compile.
    """
    for node in of(program, "subscript_expression"):
        array, index = field(node, "argument"), field(node, "index")
        if array is None or index is None or len(node.named_children) != 2:
            continue
        base, offset = text(program, array), text(program, index)
        if not is_primary(program, array):
            base = f"({base})"
        if not is_primary(program, index) or exposes_macro(program, index):
            offset = f"({offset})"
        yield Change((Edit(node.start_byte, node.end_byte, f"(*({base} + {offset}))"),), node)


def _pointers(program: Program) -> int:
    count = 0
    for node in of(program, "pointer_expression"):
        argument, operator = field(node, "argument"), field(node, "operator")
        inner = peeled(argument) if argument is not None else None
        sign = field(inner, "operator") if inner is not None and inner.type == "binary_expression" else None
        count += operator is not None and operator.type == "*" and sign is not None and sign.type == "+"
    return count


FORMS = (Form("pointer_access", "access", "a[i]  →  (*(a + i))", to_pointers, _pointers),)
