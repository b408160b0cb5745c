"""Java and C: declarations of local variables, one or several, with or without a value."""

from __future__ import annotations

from collections.abc import Iterator

from tree_sitter import Node

from attacks.style.brace_statements import in_list
from attacks.style.form import Change, Form
from attacks.style.layout import gap
from attacks.style.trees import commented, field, of, text
from bench.languages import Program
from bench.samples import Edit

LOCAL = ("declaration", "local_variable_declaration")
SPECIFIERS = frozenset(
    {
        *("primitive_type", "sized_type_specifier", "type_identifier", "type_qualifier", "storage_class_specifier"),
        *("struct_specifier", "union_specifier", "enum_specifier"),
        *(
            "integral_type",
            "floating_point_type",
            "boolean_type",
            "array_type",
            "generic_type",
            "scoped_type_identifier",
        ),
        "modifiers",
    }
)
INFERRED = frozenset({"var", "auto", "__auto_type", "typeof", "__typeof__"})


def declarations(program: Program) -> Iterator[tuple[Node, str, list[Node]]]:
    """Every declaration of variables in a list of statements: the node, the type as it is written, and the declarators.

    Left out are types that are inferred, or defined on the spot, attributes, and declared functions.
    """
    for node in of(program, *LOCAL):
        declarators = node.children_by_field_name("declarator")
        if not declarators or not in_list(node) or commented(program, node.start_byte, node.end_byte):
            continue
        before = [child for child in node.children if child.end_byte <= declarators[0].start_byte]
        if not before or any(child.type not in SPECIFIERS or field(child, "body") is not None for child in before):
            continue
        said = program.data[node.start_byte : before[-1].end_byte].decode()
        if set(said.split()) & INFERRED or any(_is_function(declarator) for declarator in declarators):
            continue
        if program.data[node.end_byte - 1 : node.end_byte] == b";":
            yield node, said, declarators


def _is_function(declarator: Node) -> bool:
    here: Node | None = declarator
    while here is not None:
        if here.type in ("function_declarator", "attributed_declarator", "ms_based_modifier", "bitfield_clause"):
            return True
        here = field(here, "declarator")
    return False


def split(program: Program) -> Iterator[Change]:
    """``int a = 1, b;`` → ``int a = 1; int b;``, in the same order."""
    for node, kind, declarators in declarations(program):
        if len(declarators) > 1:
            said = gap(program, node).join(f"{kind} {text(program, one)};" for one in declarators)
            yield Change((Edit(node.start_byte, node.end_byte, said),), node)


def merge(program: Program) -> Iterator[Change]:
    """``int a = 1; int b;`` → ``int a = 1, b;``, for neighbours of one type."""
    for first, second, declarators in _neighbours(program):
        yield Change((Edit(first.end_byte - 1, declarators[0].start_byte, ", "),), second)


def _neighbours(program: Program) -> Iterator[tuple[Node, Node, list[Node]]]:
    """Two declarations of one type, nothing between them: both nodes, and what the second declares."""
    previous: tuple[Node, str] | None = None
    for node, kind, declarators in declarations(program):
        if previous is not None and node.prev_sibling == previous[0] and kind.split() == previous[1].split():
            yield previous[0], node, declarators
        previous = node, kind


def separate(program: Program) -> Iterator[Change]:
    """``int x = e;`` → ``int x; x = e;``.

    Not for a constant (``final``, ``const``), a ``static`` (set once only), an array or a list of values.
    """
    for node, kind, declarators in declarations(program):
        if len(declarators) != 1 or _fixed(kind, declarators[0]):
            continue
        name, value = _initialised(declarators[0])
        if name is None or value is None or value.type in ("initializer_list", "array_initializer"):
            continue
        base = _base(name)
        if base is not None:
            said = f";{gap(program, node)}{text(program, base)} = "
            yield Change((Edit(name.end_byte, value.start_byte, said),), node)


def join(program: Program) -> Iterator[Change]:
    """``int x; x = e;`` → ``int x = e;``, for neighbours; conditions as for :func:`separate`."""
    for node, declarator, value in _pairs(program):
        yield Change((Edit(declarator.end_byte, value.start_byte, " = "),), node)


def _pairs(program: Program) -> Iterator[tuple[Node, Node, Node]]:
    """A declaration without a value, and the next statement assigns to it: the node, its declarator, the value."""
    for node, kind, declarators in declarations(program):
        if len(declarators) != 1 or _fixed(kind, declarators[0]):
            continue
        name, value = _initialised(declarators[0])
        base = _base(name) if name is not None and value is None else None
        after = node.next_sibling
        if base is None or after is None or after.type != "expression_statement" or not after.named_children:
            continue
        given = after.named_children[0]
        left, operator, right = field(given, "left"), field(given, "operator"), field(given, "right")
        if given.type != "assignment_expression" or left is None or operator is None or right is None:
            continue
        if operator.type == "=" and text(program, left) == text(program, base) and len(after.named_children) == 1:
            yield node, declarators[0], right


def _initialised(declarator: Node) -> tuple[Node | None, Node | None]:
    """What is declared (a name, perhaps behind stars) and its value."""
    if declarator.type == "variable_declarator":  # Java
        plain = field(declarator, "dimensions") is None
        return (field(declarator, "name") if plain else None), field(declarator, "value")
    if declarator.type == "init_declarator":
        return field(declarator, "declarator"), field(declarator, "value")
    return declarator, None


def _base(name: Node) -> Node | None:
    """The identifier behind the stars of a pointer; ``None`` for arrays and constant pointers."""
    here: Node | None = name
    while here is not None and here.type == "pointer_declarator":
        if any(child.type == "type_qualifier" for child in here.named_children):
            return None
        here = field(here, "declarator")
    return here if here is not None and here.type == "identifier" else None


def _fixed(kind: str, declarator: Node) -> bool:
    """Can the variable not be assigned later, or not with the same meaning?"""
    words = set(kind.replace("@", " @").split())
    if words & {"static", "extern", "final", "_Thread_local", "thread_local", "register"} or "@" in kind:
        return True
    inner = field(declarator, "declarator") if declarator.type == "init_declarator" else declarator
    return "const" in words and not (inner is not None and inner.type == "pointer_declarator")


FORMS = (
    Form(
        "split_declarations",
        "declarations",
        "int a = 1, b;  →  int a = 1; int b;",
        split,
        lambda p: sum(1 for _ in _neighbours(p)),
        opposite="merged_declarations",
    ),
    Form(
        "merged_declarations",
        "declarations",
        "int a = 1; int b;  →  int a = 1, b;",
        merge,
        lambda p: sum(len(d) > 1 for _, _, d in declarations(p)),
        opposite="split_declarations",
    ),
    Form(
        "separate_initializer",
        "declarations",
        "int x = e;  →  int x; x = e;",
        separate,
        lambda p: sum(1 for _ in _pairs(p)),
        opposite="joined_initializer",
    ),
    Form(
        "joined_initializer",
        "declarations",
        "int x; x = e;  →  int x = e;",
        join,
        lambda p: sum(len(d) == 1 and _initialised(d[0])[1] is not None for _, _, d in declarations(p)),
        opposite="separate_initializer",
    ),
)
