"""Java and C printed again from their tokens: one statement a line, four blanks for each brace, one way to put blanks.

Lines are never broken, and no token is added or taken away. A C directive keeps its line as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tree_sitter import Node

from bench.languages import Program, parse
from bench.languages.normalising.result import Normalised

INDENT = "    "
_WHOLE = frozenset({"string_literal", "char_literal", "character_literal", "system_lib_string"})
_LISTS = frozenset({"initializer_list", "array_initializer", "element_value_array_initializer"})
"""Braces around values: they stay on their line."""
_CALLS = frozenset(
    {"argument_list", "parameter_list", "formal_parameters", "annotation_argument_list", "preproc_params"}
)
_CALLS |= {"sizeof_expression", "inferred_parameters"}
_GENERICS = frozenset({"type_arguments", "type_parameters"})
_PREFIXES = frozenset({"unary_expression", "pointer_expression", "pointer_declarator", "abstract_pointer_declarator"})
_COLONS = frozenset(
    {"case_statement", "labeled_statement", "switch_label", "switch_block_statement_group", "default_label"}
)
_JOINED = ("else", "catch", "finally", ";", ",", ")", ".", "]")
_LEXEMES = frozenset(
    "++ -- && || << >> -> // /* == != <= >= += -= *= /= %= &= |= ^= :: ## .. <: :> <% %> %: ?? @@".split()  # noqa: SIM905
)
_DIRECTIVE = re.compile(rb"#(?:[^\n\\]|\\\r?\n|\\.)*")


@dataclass(frozen=True, slots=True)
class _Token:
    """A token and where it stands in the tree.

    Attributes:
        text: as written.
        parent: type of the node that holds it.
        first: whether it is that node's first child.
        directive: a whole line that begins with ``#``.
    """

    text: str
    parent: str
    first: bool
    directive: bool = False

    @property
    def is_word(self) -> bool:
        """A name, a keyword or a literal."""
        return self.text[0].isalnum() or self.text[0] in "_$\"'" or not self.text[0].isascii()


def printed(language: str, text: str) -> Normalised:
    """The program in its layout; as it is where its tokens cannot be told for certain."""
    program = parse(language, text)
    if program.comments:
        return Normalised(text)
    tokens = _tokens(program)
    if tokens is None:
        return Normalised(text)
    page = _Page()
    for token in tokens:
        page.put(token)
    new = page.text()
    same = [leaf.text for leaf in parse(language, new).leaves] == [leaf.text for leaf in program.leaves]
    return Normalised(new if same else text)


def _tokens(program: Program) -> list[_Token] | None:
    """The program's tokens; ``None`` where some text belongs to none of them, or a ``#`` stands inside a line."""
    found: list[_Token] = []
    reached = 0
    for node in _leaves(program.tree.root_node):
        start, end = node.byte_range
        if start < reached or start == end or program.data[start:end].isspace():
            continue
        if program.data[reached:start].strip(b" \t\r\n\f\v\\"):
            return None
        parent = node.parent
        directive = program.data[start : start + 1] == b"#"
        if directive:
            if program.data[program.data.rfind(b"\n", 0, start) + 1 : start].strip():
                return None
            match = _DIRECTIVE.match(program.data, start)
            end = match.end() if match else end
        text = program.data[start:end].decode().strip()
        first = parent is not None and parent.start_byte == start
        found.append(_Token(text, parent.type if parent is not None else "", first, directive))
        reached = end
    return None if program.data[reached:].strip() else found


def _leaves(root: Node) -> Iterator[Node]:
    stack = [root]
    while stack:
        node = stack.pop()
        if node.type in _WHOLE or not node.children:
            yield node
        else:
            stack += reversed(node.children)


@dataclass
class _Page:
    """Lines as they are written.

    Attributes:
        lines: finished.
        line: the one being written, without its indent.
        open: the brackets that are open: ``(``, ``[``, ``{`` of a block or ``=`` for a list's brace.
        last: the token before.
    """

    lines: list[str] = field(default_factory=list)
    line: str = ""
    open: list[str] = field(default_factory=list)
    last: _Token | None = None
    margin: int = 0

    def put(self, token: _Token) -> None:
        """Write one token, and end the line where it does."""
        if token.directive:
            self._end()
            self.lines.append(token.text)
            self.last = None
            return
        closes_block = token.text == "}" and token.parent not in _LISTS
        if closes_block:
            self._end()
            self._close("{")
        elif self.last is not None and _ends_line(self.last, token, self.open):
            self._end()
        if not self.line:
            self.margin = self.open.count("{")
        elif self.last is not None and _apart(self.last, token):
            self.line += " "
        self.line += token.text
        if token.text in ("(", "["):
            self.open.append(token.text)
        elif token.text == "{":
            self.open.append("=" if token.parent in _LISTS else "{")
        elif token.text in (")", "]"):
            self._close("(" if token.text == ")" else "[")
        elif token.text == "}" and not closes_block:
            self._close("=")
        self.last = token

    def _close(self, bracket: str) -> None:
        """Forget the innermost such bracket and what was opened inside it."""
        if bracket in self.open:
            while self.open.pop() != bracket:
                pass

    def _end(self) -> None:
        if self.line:
            self.lines.append(INDENT * self.margin + self.line)
        self.line = ""

    def text(self) -> str:
        """The whole page."""
        self._end()
        return "\n".join(self.lines) + "\n" if self.lines else ""


def _ends_line(last: _Token, token: _Token, brackets: list[str]) -> bool:
    """Does a line end between two tokens?"""
    if last.text == "{" and last.parent not in _LISTS:
        return True
    if last.text == "}" and last.parent not in _LISTS:
        named = last.parent in ("field_declaration_list", "enumerator_list")  # ``struct { … } name;``
        return not (token.text in _JOINED or named or (token.text == "while" and token.parent == "do_statement"))
    inside = bool(brackets) and brackets[-1] != "{"
    if last.text == ";":
        return not inside
    return last.text == ":" and last.parent in _COLONS and not inside


def _apart(last: _Token, token: _Token) -> bool:
    """Does a blank stand between two tokens of a line?"""
    if last.is_word and token.is_word:
        return True
    if last.text[-1] + token.text[0] in _LEXEMES and not {last.parent, token.parent} <= _GENERICS:
        return True
    return not (_sticks_right(last) or _sticks_left(last, token))


def _sticks_right(token: _Token) -> bool:
    """Is there no blank behind this token?"""
    text, parent = token.text, token.parent
    if text in ("(", "[", ".", "!", "~", "@", "::"):
        return True
    if text == "->":
        return parent == "field_expression"
    if text == "<":
        return parent in _GENERICS
    if text == "{":
        return parent in _LISTS
    if text == ")":
        return parent == "cast_expression"
    return token.first and (parent in _PREFIXES or (parent == "update_expression" and text in ("++", "--")))


def _sticks_left(last: _Token, token: _Token) -> bool:
    """Is there no blank before this token?"""
    text, parent = token.text, token.parent
    if text in (",", ";", ")", "]", ".", "::"):
        return True
    if text == "->":
        return parent == "field_expression"
    if text in ("<", ">") and parent in _GENERICS:
        return text == ">" or (last.is_word and last.parent != "modifiers")
    if text == "}":
        return parent in _LISTS
    if text == ":":
        return parent in _COLONS
    if text == "(":
        return parent in _CALLS and (last.is_word or last.text in (")", "]", ">"))
    if text == "[":
        return last.is_word or last.text in (")", "]")
    return text in ("++", "--") and parent == "update_expression" and not token.first
