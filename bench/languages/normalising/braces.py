"""Java and C: what provably never runs is taken out, and arithmetic on literals is done, by edits of the text."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from bench.languages import Program, parse
from bench.languages.normalising import ranges
from bench.languages.normalising.ranges import Range
from bench.languages.normalising.result import Normalised
from bench.samples import Edit, apply_edits

_BLOCKS = frozenset({"compound_statement", "block", "constructor_body"})
_LABELS = frozenset({"labeled_statement", "case_statement", "switch_block_statement_group", "switch_rule"})
_JUMPS = frozenset({"return_statement", "throw_statement", "break_statement", "continue_statement", "yield_statement"})
_ENDS = frozenset({"return_statement", "break_statement", "continue_statement", "goto_statement"})
_CALLS = frozenset({"call_expression", "method_invocation", "object_creation_expression"})
_CONTROLS = frozenset({"if_statement", "while_statement", "do_statement", "switch_statement", "switch_expression"})
_CONTROLS |= {"synchronized_statement"}
_PRIMITIVE = frozenset(
    {"primitive_type", "sized_type_specifier", "integral_type", "floating_point_type", "boolean_type"}
)
_PLAIN_INT = re.compile(r"0[xX][0-9a-fA-F]+|0[bB][01]+|0[0-7]*|[1-9][0-9]*")
_PLAIN_FLOAT = re.compile(r"(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][+-]?[0-9]+)?")
_STRINGS = frozenset({"string_literal", "char_literal", "character_literal"})


def without_dead_code(language: str, text: str) -> Normalised:
    """The program without branches that never run, empty statements and locals that are only given a literal."""
    program = parse(language, text)
    return _edited(text, list(_Dead(program).edits()))


def folded(language: str, text: str) -> Normalised:
    """The program with sums and the like of plain whole literals done, and such literals in decimal."""
    program = parse(language, text)
    return Normalised(apply_edits(text, list(_folds(program))))


def _edited(text: str, edits: list[Edit]) -> Normalised:
    """The outermost of the edits; what lies inside them is seen to in the next round."""
    outer: list[Edit] = []
    for edit in sorted(edits, key=lambda e: (e.start, -e.end)):
        if not outer or edit.start >= outer[-1].end:
            outer.append(edit)
    return Normalised(apply_edits(text, outer), dead=len(outer))


def _nodes(program: Program) -> Iterator[Node]:
    """Every named node but those inside directives that are no code."""
    stack = [program.tree.root_node]
    while stack:
        node = stack.pop()
        yield node
        tested = node.child_by_field_name("condition") if node.type.startswith("preproc") else None
        if node.type not in ("preproc_def", "preproc_function_def", "preproc_call", "preproc_include"):
            stack += [child for child in node.named_children if child != tested]


# ------------------------------------------------------------------------------------------------------------- dead code


class _Dead:
    """Finds the dead code of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.java = program.language.name == "java"
        self.unread = {name.spans[0][0] for name in program.locals if len(name.spans) == 1}

    def edits(self) -> Iterator[Edit]:
        """Edits that take it out; one may lie inside another."""
        for node in _nodes(self.program):
            if node.has_error:
                continue
            if node.type in ("if_statement", "while_statement"):
                yield from self._conditional(node)
            elif node.type in _BLOCKS:
                yield from self._unreachable(node)
            if node.parent is not None and node.parent.type in _BLOCKS and self._is_idle(node):
                yield Edit(*node.byte_range, "")

    def _conditional(self, node: Node) -> Iterator[Edit]:
        known = ranges.truth(self.range_of(node.child_by_field_name("condition")))
        loop = node.type == "while_statement"
        body = node.child_by_field_name("body" if loop else "consequence")
        other = _after_else(node.child_by_field_name("alternative"))
        if known is None or body is None or (known and loop):
            return
        kept, dropped = (body, other) if known else (other, body)
        if dropped is not None and not self._can_drop(dropped):
            return
        if kept is None:
            in_block = node.parent is not None and node.parent.type in _BLOCKS
            yield Edit(*node.byte_range, "" if in_block else "{}")
        elif not (self.java and _holds(kept, _JUMPS)):
            # In Java a jump that no condition guards makes what follows it unreachable, which is an error there.
            yield Edit(*node.byte_range, self._source(kept))

    def _can_drop(self, node: Node) -> bool:
        """No label inside that could be jumped to, no directive, and in Java nothing that a ``catch`` around it waits for."""
        if _holds(node, _LABELS) or "#" in self._source(node):
            return False
        if not self.java:
            return True
        around: Node | None = node
        while around is not None and not around.type.startswith("try_"):
            around = around.parent
        return around is None or not _holds(node, _CALLS | {"throw_statement"})

    def _unreachable(self, block: Node) -> Iterator[Edit]:
        """C: statements between a jump and the next label. (In Java they would be errors.)"""
        if self.java:
            return
        ended = False
        for child in block.named_children:
            droppable = child.type.endswith("_statement") and self._can_drop(child)
            if ended and droppable:
                yield Edit(*child.byte_range, "")
            else:
                ended = child.type in _ENDS

    def _is_idle(self, node: Node) -> bool:
        """An empty statement, or the declaration of one local that nothing uses, with a literal or nothing in it."""
        if node.type in ("expression_statement", ";"):
            return self._source(node).strip() == ";"
        if node.type not in ("declaration", "local_variable_declaration"):
            return False
        kind = node.child_by_field_name("type")
        declarators = node.children_by_field_name("declarator")
        plain = len(node.named_children) == 2 and kind is not None and (self.java or kind.type in _PRIMITIVE)
        return plain and len(declarators) == 1 and self._is_unread(declarators[0])

    def _is_unread(self, declarator: Node) -> bool:
        if declarator.type == "identifier":
            return declarator.start_byte in self.unread
        if declarator.type not in ("init_declarator", "variable_declarator"):
            return False
        name = declarator.child_by_field_name("name") or declarator.child_by_field_name("declarator")
        value = declarator.child_by_field_name("value")
        pure = value is None or value.type in _STRINGS or self.range_of(value) is not None
        return pure and name is not None and name.type == "identifier" and name.start_byte in self.unread

    def _source(self, node: Node) -> str:
        return self.program.data[node.start_byte : node.end_byte].decode()

    def range_of(self, node: Node | None) -> Range | None:
        """What is known of an expression's value; ``None`` also where evaluating it may have an effect."""
        if node is None:
            return None
        if node.type in ("parenthesized_expression", "condition"):
            inner = node.named_children
            return self.range_of(inner[0]) if len(inner) == 1 else None
        if node.type in ("true", "false"):
            return ranges.TRUE if node.type == "true" else ranges.FALSE
        if node.type.endswith("_literal"):
            value = _number(self._source(node))
            return None if value is None else ranges.number(value)
        if node.type == "unary_expression":
            return self._unary(node)
        if node.type == "binary_expression":
            return self._binary(node)
        if node.type in ("call_expression", "method_invocation"):
            return self._called(node)
        return None

    def _unary(self, node: Node) -> Range | None:
        sign = self._source(node.children[0])
        value = self.range_of(node.child_by_field_name("argument") or node.child_by_field_name("operand"))
        if sign == "!":
            return ranges.negated(value)
        return ranges.minus(value) if sign == "-" else value if sign == "+" else None

    def _binary(self, node: Node) -> Range | None:
        left = self.range_of(node.child_by_field_name("left"))
        right = self.range_of(node.child_by_field_name("right"))
        sign = node.child_by_field_name("operator")
        operator = "" if sign is None else self._source(sign)
        if operator in ("&&", "||"):
            return (ranges.both if operator == "&&" else ranges.either)(left, right)
        return ranges.arithmetic(operator, left, right) or ranges.compared(operator, left, right)

    def _called(self, node: Node) -> Range | None:
        function = node.child_by_field_name("function") or node.child_by_field_name("name")
        arguments = node.child_by_field_name("arguments")
        owner = node.child_by_field_name("object")
        if function is None or arguments is None or self.java is (owner is None):
            return None
        if owner is not None and self._source(owner) not in ("Math", "java.lang.Math"):
            return None
        name = self._source(function)
        if self.program.binds("Math" if self.java else name):
            return None
        known = [self.range_of(argument) for argument in arguments.named_children]
        if name == "abs" and not self.java and not all(x is not None and x.whole for x in known):
            return None  # C's takes an int: abs(0.5) is 0
        return ranges.called(name, known) if (name == "random") <= self.java else None


def _after_else(node: Node | None) -> Node | None:
    """The statement behind ``else``, which C's grammar wraps."""
    if node is not None and node.type == "else_clause":
        return node.named_children[-1] if node.named_children else None
    return node


def _holds(node: Node, types: frozenset[str]) -> bool:
    stack = [node]
    while stack:
        inner = stack.pop()
        if inner.type in types:
            return True
        stack += inner.named_children
    return False


def _number(text: str) -> float | None:
    """The value of a literal without suffix, an ``int`` for a whole one; ``None`` for every other spelling."""
    text = text.replace("_", "")
    if text[:1] == "-":  # C's grammar takes the sign into the literal
        positive = _number(text[1:])
        return None if positive is None else -positive
    if _PLAIN_INT.fullmatch(text):
        octal = len(text) > 1 and text[0] == "0" and text[1].isdigit()
        value = int(text, 8) if octal else int(text, 0)
        return value if value <= ranges.WIDEST_INT else None
    return float(text) if _PLAIN_FLOAT.fullmatch(text) else None


# -------------------------------------------------------------------------------------------------------------- literals


def _folds(program: Program) -> Iterator[Edit]:
    """Edits of the outermost expressions of whole literals alone."""
    for node in _nodes(program):
        parent = node.parent
        value = _folded(node, program.data)
        if value is None or (parent is not None and _folded(parent, program.data) is not None):
            continue
        start, end = node.byte_range
        new = str(value)
        if node.type == "parenthesized_expression" and parent is not None and parent.type in _CONTROLS:
            new = f"({new})"
        elif program.data[start - 1 : start].isalnum() and start:
            new = f" {new}"  # ``return(3)``
        if new.encode() != program.data[start:end]:
            yield Edit(start, end, new)


def _folded(node: Node, data: bytes) -> int | None:
    """The value of an expression of whole literals, where it is an ``int`` and can be written as one; ``None`` for every other node."""
    if node.has_error or node.is_missing:
        return None
    if node.type.endswith("_literal") and node.type not in _STRINGS:
        value = _number(data[node.start_byte : node.end_byte].decode())
        return value if isinstance(value, int) else None
    if node.type == "parenthesized_expression" and len(node.named_children) == 1:
        inner = _folded(node.named_children[0], data)
        return inner if inner is not None and inner >= 0 else None  # ``a -(-3)`` would be ``a --3``
    if node.type != "binary_expression":
        return None
    left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
    sign = node.child_by_field_name("operator")
    if left is None or right is None or sign is None:
        return None
    a, b = _folded(left, data), _folded(right, data)
    if a is None or b is None:
        return None
    value = _computed(data[sign.start_byte : sign.end_byte].decode(), a, b)
    return value if value is not None and 0 <= value <= ranges.WIDEST_INT else None


def _computed(operator: str, a: int, b: int) -> int | None:
    # C rounds towards zero, Python down; shifts of or by a negative number are the compiler's.
    if min(a, b) < 0 and operator in ("/", "%", "<<", ">>"):
        return None
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a // b if b else None
        case "%":
            return a % b if b else None
        case "&":
            return a & b
        case "|":
            return a | b
        case "^":
            return a ^ b
        case "<<":
            return a << b if b < 31 else None
        case ">>":
            return a >> b if b < 31 else None
    return None
