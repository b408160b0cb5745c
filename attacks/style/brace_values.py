"""Java and C: what may be said of an expression from the syntax alone: its type, and whether its evaluation can be moved."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache

from tree_sitter import Node

from attacks.style.trees import ancestors, bound, field, may_be_macro, of, parts, peeled, text, within
from bench.languages import Name, Program

NUMBERS = ("byte", "short", "char", "int", "long", "float", "double")
"""Java's numeric types; from ``int`` on each is promoted to those after it."""
ARITHMETIC = frozenset(["+", "-", "*", "/", "%"])
BITWISE = frozenset(["&", "|", "^"])
TRUTHS = frozenset(["<", "<=", ">", ">=", "==", "!=", "&&", "||"])
LITERALS = frozenset(
    {
        *(
            "number_literal",
            "char_literal",
            "character_literal",
            "string_literal",
            "true",
            "false",
            "null",
            "null_literal",
        ),
        *("decimal_integer_literal", "hex_integer_literal", "octal_integer_literal", "binary_integer_literal"),
        *("decimal_floating_point_literal", "hex_floating_point_literal"),
    }
)
_AGGREGATE = re.compile(r"(?:struct|union)\b[^*]*")
PRECEDENCE = {"==": 9, "!=": 9, "<": 10, "<=": 10, ">": 10, ">=": 10, "instanceof": 10}


class Grade(IntEnum):
    """How freely the evaluation of an expression can be moved past another's."""

    CONSTANT = 0
    LOCAL = 1
    """Reads variables that nothing but an assignment in this function can change, and cannot fail."""
    READS = 2
    """Reads memory, or may fail; changes nothing."""
    CALLS = 3
    """Calls functions, and assigns to nothing in this function."""
    UNKNOWN = 4


def movable(program: Program, left: Node, right: Node) -> bool:
    """Does it make no difference which of two expressions is evaluated first?

    In C a failing read is undefined in either order; in Java it is an exception, and two must not change places. A C call may be a
    macro that assigns to its arguments: it must not name what the other side reads.
    """
    low, high = sorted((grade(program, left), grade(program, right)))
    if low is Grade.CONSTANT or high is Grade.LOCAL:
        return True
    if low is Grade.LOCAL:
        return high <= Grade.CALLS and (program.language.name != "c" or not _words(left) & _words(right))
    return high is Grade.READS and program.language.name == "c"


def _words(node: Node) -> set[bytes | None]:
    return {inner.text for inner in within(node) if inner.type == "identifier"}


def grade(program: Program, node: Node) -> Grade:
    """The grade of an expression; what is not listed here is unknown."""
    kind = node.type
    if kind in LITERALS or kind == "sizeof_expression":
        return Grade.CONSTANT
    if kind == "identifier":
        return _grade_of_name(program, node)
    inner = [grade(program, part) for part in parts(node) if not part.type.endswith("type")]
    worst = max(inner, default=Grade.CONSTANT)
    if kind in ("parenthesized_expression", "unary_expression"):
        return worst
    if kind == "binary_expression":
        return max(worst, Grade.READS) if _may_fail(program, node) else worst
    if kind in ("call_expression", "method_invocation"):
        return _grade_of_call(program, node)
    if kind == "cast_expression":
        primitive = (target := field(node, "type")) is not None and "_type" in target.type
        return worst if primitive and program.language.name == "java" else max(Grade.READS, worst)
    if kind in ("subscript_expression", "array_access", "pointer_expression"):
        return max(worst, Grade.READS)
    if kind in ("field_expression", "field_access"):
        base = node.named_children[0]
        return Grade.READS if base.type == "this" else max(grade(program, base), Grade.READS)
    return Grade.READS if kind == "this" else Grade.UNKNOWN


def _grade_of_name(program: Program, node: Node) -> Grade:
    if program.language.name == "c" and may_be_macro(program, node):
        return Grade.UNKNOWN
    return Grade.LOCAL if node.start_byte in steady(program) else Grade.READS


@lru_cache(maxsize=4)
def steady(program: Program) -> frozenset[int]:
    """Every place (first byte) of a variable that nothing but an assignment in this function can change, and whose read cannot fail.

    Java: a local of a primitive type (unboxing can fail). C: no ``static``, ``volatile``, array or structure, and its address is
    taken nowhere.
    """
    names = {name: declared(program, name) for name in set(bound(program).values())}
    if program.language.name == "java":
        kept = [name for name, kind in names.items() if kind in (*NUMBERS, "boolean")]
    else:
        taken = _addressed(program)
        plain = [name for name, kind in names.items() if kind is not None and not _AGGREGATE.fullmatch(kind)]
        kept = [name for name in plain if taken.isdisjoint(start for start, _ in name.spans)]
    return frozenset(start for name in kept for start, _ in name.spans)


def _addressed(program: Program) -> frozenset[int]:
    """C: the places after ``&``."""
    found = set()
    for node in of(program, "pointer_expression"):
        operator, argument = field(node, "operator"), field(node, "argument")
        if operator is not None and operator.type == "&" and argument is not None:
            base = peeled(argument)
            while base.type in ("field_expression", "subscript_expression"):
                base = peeled(base.named_children[0])
            found.add(base.start_byte)
    return frozenset(found)


def _grade_of_call(program: Program, node: Node) -> Grade:
    function = field(node, "function") or field(node, "object")
    if program.language.name == "c" and function is not None and may_be_macro(program, function):
        return Grade.UNKNOWN
    arguments = field(node, "arguments")
    below = [*([function] if function is not None else []), *(parts(arguments) if arguments is not None else [])]
    worst = max((grade(program, part) for part in below), default=Grade.CONSTANT)
    return Grade.UNKNOWN if worst is Grade.UNKNOWN else Grade.CALLS


def _may_fail(program: Program, node: Node) -> bool:
    operator, right = field(node, "operator"), field(node, "right")
    if operator is None or right is None or operator.type not in ("/", "%"):
        return False
    return right.type not in LITERALS or text(program, right) in ("0", "0L")


# -------------------------------------------------------------------------------------------------------------- types


def declared(program: Program, name: Name) -> str | None:
    """The type of a variable as it is declared; ``None`` where it is not plain (arrays, ``var``, ``static``, ``volatile``)."""
    start, end = name.spans[0]
    node = program.tree.root_node.descendant_for_byte_range(start, end)
    if node is None:
        return None
    java = program.language.name == "java"
    return _declared_java(program, node) if java else _declared_c(program, node)


def _declared_java(program: Program, node: Node) -> str | None:
    owner = node.parent
    if owner is None or field(owner, "dimensions") is not None:
        return None
    if owner.type == "variable_declarator":
        owner = owner.parent
    if owner is None or owner.type not in ("local_variable_declaration", "formal_parameter", "enhanced_for_statement"):
        return None
    kind = field(owner, "type")
    word = None if kind is None else text(program, kind)
    return None if word == "var" else word


def _declared_c(program: Program, node: Node) -> str | None:
    stars = 0
    for owner in ancestors(node):
        if owner.type == "pointer_declarator":
            stars += 1
        elif owner.type in ("declaration", "parameter_declaration"):
            kind = field(owner, "type")
            said = [text(program, part) for part in owner.named_children if part.type != "init_declarator"]
            if kind is None or {"static", "volatile", "_Atomic", "register", "extern"} & set(said):
                return None
            return text(program, kind) + "*" * stars
        elif owner.type != "init_declarator":
            return None
    return None


def type_of(program: Program, node: Node) -> str | None:
    """The type of an expression where it is certain, else ``None``."""
    node = peeled(node)
    java = program.language.name == "java"
    word = text(program, node)
    if node.type in LITERALS:
        return _java_literal(node.type, word) if java else _c_literal(node.type, word)
    if node.type == "identifier":
        name = bound(program).get(node.start_byte)
        return None if name is None else declared(program, name)
    if node.type == "unary_expression" and (operand := field(node, "operand") or field(node, "argument")) is not None:
        if node.children[0].type == "!":
            return "boolean" if java else "int"
        kind = type_of(program, operand)
        return kind if kind in ("int", "long", "float", "double") else None
    if node.type == "binary_expression":
        return _type_of_binary(program, node, java)
    if node.type == "cast_expression" and (target := field(node, "type")) is not None:
        return text(program, target) if "*" not in text(program, target) else None
    return _java_length(program, node) if java else None


def _java_literal(kind: str, word: str) -> str | None:
    if kind.endswith("integer_literal"):
        return "long" if word[-1] in "lL" else "int"
    if kind == "decimal_floating_point_literal":
        return "float" if word[-1] in "fF" else "double"
    known = {"true": "boolean", "false": "boolean", "character_literal": "char", "string_literal": "String"}
    return known.get(kind)


def _c_literal(kind: str, word: str) -> str | None:
    if kind == "number_literal":
        if re.fullmatch(r"0|[1-9]\d{0,8}|0[xX][0-9a-fA-F]{1,7}", word):
            return "int"
        return "double" if re.fullmatch(r"\d+\.\d*|\.\d+", word) else None
    return {"char_literal": "int", "string_literal": "char*"}.get(kind) if word[0] in "'\"" else None


def _type_of_binary(program: Program, node: Node, java: bool) -> str | None:
    operator, left, right = field(node, "operator"), field(node, "left"), field(node, "right")
    if operator is None or left is None or right is None:
        return None
    if operator.type in TRUTHS:
        return "boolean" if java else "int"
    if operator.type not in ARITHMETIC | BITWISE:
        return None
    first, second = type_of(program, left), type_of(program, right)
    if java and first in NUMBERS and second in NUMBERS:
        return max("int", first, second, key=NUMBERS.index)
    return first if first == second and first in ("int", "long", "float", "double") else None


def _java_length(program: Program, node: Node) -> str | None:
    """``a.length`` of an array, ``s.length()`` of a ``String``; both variables of this function."""
    base, name = field(node, "object"), field(node, "field") or field(node, "name")
    if base is None or name is None or base.type != "identifier":
        return None
    kind, word = type_of(program, base), text(program, name)
    if node.type == "field_access" and word == "length" and kind is not None and kind.endswith("[]"):
        return "int"
    return "int" if node.type == "method_invocation" and word == "length" and kind == "String" else None


# ------------------------------------------------------------------------------------------------- reading and writing


def exposes_macro(program: Program, node: Node) -> bool:
    """C: might a macro's text join the operators around ``node``? Inside parentheses and brackets it cannot."""
    if program.language.name != "c":
        return False
    if node.type == "call_expression":
        function = field(node, "function")
        return function is not None and may_be_macro(program, function)
    if node.type in ("parenthesized_expression", "argument_list"):
        return False
    if node.type in ("subscript_expression", "field_expression"):
        return exposes_macro(program, node.named_children[0])
    if node.type == "identifier":
        return may_be_macro(program, node)
    return any(exposes_macro(program, part) for part in parts(node))


def negated(program: Program, node: Node) -> str:
    """The text of a condition with the opposite truth: ``==`` and ``!=`` are each other's exact opposites, ``<`` and ``>=`` are
    not (NaN)."""
    node = peeled(node)
    word = text(program, node)
    if node.type == "unary_expression" and node.children[0].type == "!":
        return text(program, peeled(node.named_children[-1]))
    if node.type == "binary_expression" and not exposes_macro(program, node):
        operator = field(node, "operator")
        if operator is not None and operator.type in ("==", "!="):
            swapped = "!=" if operator.type == "==" else "=="
            cut = operator.start_byte - node.start_byte, operator.end_byte - node.start_byte
            data = word.encode()
            return (data[: cut[0]] + swapped.encode() + data[cut[1] :]).decode()
    return "!" + word if is_primary(program, node) else f"!({word})"


def is_negative(node: Node) -> bool:
    """Is a condition ``!…`` or ``… != …``?"""
    node = peeled(node)
    if node.type == "unary_expression":
        return node.children[0].type == "!"
    operator = field(node, "operator")
    return node.type == "binary_expression" and operator is not None and operator.type == "!="


def is_primary(program: Program, node: Node) -> bool:
    """Can any operator stand beside ``node`` without parentheses?"""
    kinds = (
        "identifier call_expression method_invocation field_expression field_access subscript_expression array_access"
    )
    return node.type in (*kinds.split(), "parenthesized_expression", *LITERALS) and not exposes_macro(program, node)


def is_variable(program: Program, node: Node) -> bool:
    """Can ``node`` be written twice: the same place, found without a call, an assignment or a macro?"""
    kinds = ("identifier", "field_expression", "field_access", "subscript_expression", "array_access")
    return node.type in kinds and grade(program, node) <= Grade.READS


def has_pattern(node: Node) -> bool:
    """Java: does a condition bind names (``o instanceof String s``)?"""
    return any(
        inner.type == "instanceof_expression"
        and (field(inner, "name") is not None or field(inner, "pattern") is not None)
        for inner in within(node)
    )
