"""Which Java and C statements declare one fresh name and do nothing else.

``type name = expression;`` with a number, truth value or string, where the expression is made of

- literals;
- parameters of a plain number type (Java also ``boolean``) that nothing in the function declares again;
- unary and binary operators and ``? :`` on such, as far as the result is defined: arithmetic of literals is evaluated here and must fit
  32 bits; what involves a parameter wraps in Java, while in C, where overflow is not defined, it must be free of it (comparisons,
  ``&``, ``|``, ``^``, ``~``, ``!``); a divisor is a literal other than 0 and -1; a shift's distance is a literal from 0 to 31, and C
  shifts literals alone to the left.

No call, cast, assignment, increment, member, element, pointer, macro or constant of another file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tree_sitter import Node

from bench.languages import Program, parse

Kind = Literal["int", "long", "float", "bool", "text", "null"]

FRAMES: Mapping[str, str] = {"c": "void f(void)\n{\n%s\n}\n", "java": "void f() {\n%s\n}\n"}
DECLARATIONS = frozenset({"declaration", "local_variable_declaration"})
CONSTANT = ("const", "final")
NUMBERS: Mapping[str, Mapping[str, Kind]] = {
    "c": {
        **dict.fromkeys(("char", "short", "int", "long", "unsigned", "signed", "size_t", "ssize_t"), "int"),
        **dict.fromkeys((f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)), "int"),
        **dict.fromkeys(("float", "double"), "float"),
    },
    "java": {
        **dict.fromkeys(("byte", "short", "char", "int"), "int"),
        "long": "long",
        **dict.fromkeys(("float", "double"), "float"),
        "boolean": "bool",
    },
}
"""Types by their words; all words of a type must be here and of one kind (``long double`` and ``char`` of text are not)."""
WIDENS: Mapping[str, Mapping[str, frozenset[Kind]]] = {
    # In C every number fits every number type here: a literal is small, and a conversion between whole numbers is defined.
    "c": {"int": frozenset({"int"}), "float": frozenset({"int", "float"}), "text": frozenset({"text"})},
    "java": {
        "int": frozenset({"int"}),
        "long": frozenset({"int", "long"}),
        "double": frozenset({"int", "long", "float"}),
        "boolean": frozenset({"bool"}),
        "String": frozenset({"text", "null"}),
    },
}
"""Which kinds a declared type takes; Java by the type's word (a ``float`` takes no ``double`` literal, and ``byte`` and ``char`` not
every number), C by the type's kind."""
COMPARISONS = frozenset({"<", ">", "<=", ">=", "==", "!="})
LOGIC = frozenset({"&&", "||"})
BITS = frozenset({"&", "|", "^"})
ARITHMETIC = frozenset({"+", "-", "*"})
DIVISIONS = frozenset({"/", "%"})
SMALLEST, LARGEST = -(2**31), 2**31 - 1
CHARACTER = re.compile(r"'(?:[ -&(-\[\]-~]|\\[nrtbf0'\"\\])'")
STRING = re.compile(r"\"(?:[ !#-\[\]-~]|\\[nrtbf0'\"\\])*\"")
WHOLE = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0|[1-9][0-9]*|0[0-7]+)")
REAL = re.compile(r"[-+]?[0-9]+\.[0-9]+")


class Impure(Exception):
    """An expression that may do something, whose value may not be defined, or that this check cannot follow."""


@dataclass(frozen=True)
class Value:
    """What is known of an expression: its kind, and the number where it is made of whole literals alone."""

    kind: Kind
    number: int | None = None


@dataclass(frozen=True)
class Scene:
    """The language, and the parameters that an expression may read."""

    language: str
    readable: Mapping[str, Kind]


def pure_statement(program: Program, line: str, taken: frozenset[str]) -> str | None:
    """The first statement of a line, if it declares a fresh name with a pure value."""
    language = program.language.name
    frame = parse(language, FRAMES[language] % line)
    statement = _first_statement(frame)
    if statement is None or statement.type not in DECLARATIONS or statement.has_error:
        return None
    declarator = statement.child_by_field_name("declarator")
    named = [c for c in statement.named_children if not c.type.endswith("comment") and _text(c) not in CONSTANT]
    if declarator is None or named != [statement.child_by_field_name("type"), declarator]:
        return None  # several declarators, other modifiers, or none
    try:
        takes, name = _declared(statement, declarator, language)
        value = declarator.child_by_field_name("value")
        if name in taken or name in program.language.keywords or program.language.replaced(name) or value is None:
            return None
        if _judge(value, Scene(language, readable_parameters(program))).kind not in takes:
            return None
    except Impure:
        return None
    return _text(statement) if "\n" not in _text(statement) else None


def _first_statement(frame: Program) -> Node | None:
    """What the frame's body begins with."""
    definition = frame.tree.root_node.named_children[0]
    body = definition.child_by_field_name("body")
    inside = [] if body is None else [child for child in body.named_children if not child.type.endswith("comment")]
    return inside[0] if inside else None


def _declared(statement: Node, declarator: Node, language: str) -> tuple[frozenset[Kind], str]:
    """The kinds that the declared type takes, and the name."""
    spelled = statement.child_by_field_name("type")
    inner = declarator.child_by_field_name("name" if language == "java" else "declarator")
    if spelled is None or inner is None:
        raise Impure
    if language == "java":
        if inner.type != "identifier" or declarator.child_by_field_name("dimensions") is not None:
            raise Impure
        return WIDENS["java"].get(_text(spelled), frozenset()), _text(inner)
    if inner.type == "pointer_declarator" and _text(spelled) == "char":
        pointed = inner.child_by_field_name("declarator")
        if pointed is None or pointed.type != "identifier" or len(inner.named_children) != 1:
            raise Impure
        return WIDENS["c"]["text"], _text(pointed)
    if inner.type != "identifier":
        raise Impure
    return WIDENS["c"].get(_number_kind(spelled, "c"), frozenset()), _text(inner)


def readable_parameters(program: Program) -> dict[str, Kind]:
    """Parameters of a plain number type, by name, that no inner declaration hides."""
    hidden = {name.text for name in program.locals}
    found: dict[str, Kind] = {}
    for name in program.parameters:
        node = program.tree.root_node.descendant_for_byte_range(*name.spans[0])
        parameter = node.parent if node is not None else None
        if parameter is None or parameter.type not in ("parameter_declaration", "formal_parameter"):
            continue  # an array, a pointer, a name from Kernighan and Ritchie's list
        spelled = parameter.child_by_field_name("type")
        plain = all(c in (spelled, node) or _text(c) in CONSTANT for c in parameter.named_children)
        if spelled is not None and plain and name.text not in hidden:
            try:
                found[name.text] = _number_kind(spelled, program.language.name)
            except Impure:
                continue
    return found


def _number_kind(spelled: Node, language: str) -> Kind:
    """The kind of a type that is made of number words."""
    kinds = {NUMBERS[language].get(word) for word in _text(spelled).split()}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind is None:
        raise Impure
    return kind


# ----------------------------------------------------------------------------------------------------------- expressions


def _judge(node: Node, scene: Scene) -> Value:
    """What is known of a pure expression.

    Raises:
        Impure: it is not pure, or not understood.
    """
    match node.type:
        case "parenthesized_expression":
            return _judge(_only(node), scene)
        case "identifier" if _text(node) in scene.readable:
            return Value(scene.readable[_text(node)])
        case "unary_expression":
            return _unary(node, scene)
        case "binary_expression":
            return _binary(node, scene)
        case "ternary_expression" | "conditional_expression":
            return _choice(node, scene)
        case _:
            return _literal(node, scene)


def _literal(node: Node, scene: Scene) -> Value:
    text, java = _text(node), scene.language == "java"
    match node.type:
        case "number_literal" | "decimal_integer_literal" | "hex_integer_literal" | "octal_integer_literal":
            if WHOLE.fullmatch(text):
                digits = text.lstrip("-+")  # a sign belongs to the number in C's tree
                octal = digits.startswith("0") and digits.isdigit()
                return _fitting(int(text, 8 if octal else 0))
            if REAL.fullmatch(text):
                return Value("float")
        case "decimal_floating_point_literal" if REAL.fullmatch(text):
            return Value("float")
        case "char_literal" | "character_literal" if CHARACTER.fullmatch(text):
            return Value("int")
        case "string_literal" if STRING.fullmatch(text):
            return Value("text")
        case "true" | "false" if java:  # C gets them from a header
            return Value("bool")
        case "null_literal" if java:
            return Value("null")
        case _:
            pass
    raise Impure


def _unary(node: Node, scene: Scene) -> Value:
    inner = _judge(_field(node, "argument" if scene.language == "c" else "operand"), scene)
    sign = _text(_field(node, "operator"))
    if sign == "!":
        if inner.kind != ("bool" if scene.language == "java" else "int"):
            raise Impure
        return Value(inner.kind)
    if inner.kind not in ("int", "long", "float") or (sign == "~" and inner.kind == "float"):
        raise Impure
    if inner.number is not None:
        return _fitting({"-": -inner.number, "+": inner.number, "~": ~inner.number}[sign])
    if sign == "-" and scene.language == "c" and inner.kind == "int":
        raise Impure  # the smallest number has no opposite
    return Value(inner.kind)


def _binary(node: Node, scene: Scene) -> Value:
    left, right = _judge(_field(node, "left"), scene), _judge(_field(node, "right"), scene)
    sign, java = _text(_field(node, "operator")), scene.language == "java"
    kinds = {left.kind, right.kind}
    truth: Kind = "bool" if java else "int"
    if sign in LOGIC:
        return _require(kinds == {truth}, Value(truth))
    if sign in COMPARISONS:
        numbers = kinds <= {"int", "long", "float"}
        return _require(numbers or (java and kinds == {"bool"} and sign in ("==", "!=")), Value(truth))
    if sign in BITS and kinds == {"bool"}:
        return Value("bool")
    if not kinds <= {"int", "long", "float"}:
        raise Impure
    if "float" in kinds:
        return _require(sign in ARITHMETIC or (sign == "/" and java), Value("float"))
    known = left.number is not None and right.number is not None
    wide: Kind = "long" if "long" in kinds else "int"
    if sign in BITS:
        return Value(wide)
    if sign in ARITHMETIC:
        return _fitting(_fold(sign, left.number, right.number)) if known else _require(java, Value(wide))
    if sign in DIVISIONS:
        return _require(right.number not in (None, 0, -1), Value(wide))
    if sign == "<<" or sign == ">>":
        near = right.number is not None and 0 <= right.number < 32
        if known and near:
            return _shifted(sign, left.number, right.number)
        return _require(near and (java or sign == ">>"), Value(left.kind))
    raise Impure


def _fold(sign: str, left: int | None, right: int | None) -> int:
    if left is None or right is None:
        raise Impure
    return {"+": left + right, "-": left - right, "*": left * right}[sign]


def _shifted(sign: str, left: int | None, right: int | None) -> Value:
    if left is None or right is None or left < 0:
        raise Impure
    return _fitting(left << right if sign == "<<" else left >> right)


def _choice(node: Node, scene: Scene) -> Value:
    test = _judge(_field(node, "condition"), scene)
    yes, no = _judge(_field(node, "consequence"), scene), _judge(_field(node, "alternative"), scene)
    if test.kind != ("bool" if scene.language == "java" else "int") or yes.kind != no.kind:
        raise Impure
    return Value(yes.kind)


def _fitting(number: int) -> Value:
    """A whole number that every ``int`` can hold."""
    return _require(SMALLEST <= number <= LARGEST, Value("int", number))


def _require(condition: bool, value: Value) -> Value:
    if not condition:
        raise Impure
    return value


def _field(node: Node, name: str) -> Node:
    child = node.child_by_field_name(name)
    if child is None:
        raise Impure
    return child


def _only(node: Node) -> Node:
    if len(node.named_children) != 1:
        raise Impure
    return node.named_children[0]


def _text(node: Node) -> str:
    text = node.text
    return "" if text is None else text.decode()
