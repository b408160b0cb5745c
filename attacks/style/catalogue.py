"""All styles of a language, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attacks.style import (
    brace_assignments,
    brace_bodies,
    brace_branches,
    brace_comparisons,
    brace_declarations,
    brace_loops,
    c_access,
    names,
    python_assignments,
    python_branches,
    python_comparisons,
    python_loops,
    python_strings,
)
from attacks.style.form import Form

BRACES: Sequence[Form] = (
    *brace_loops.FORMS,
    *brace_assignments.FORMS,
    *brace_comparisons.FORMS,
    *brace_branches.FORMS,
    *brace_declarations.FORMS,
    *brace_bodies.FORMS,
)
"""Java's and C's."""

PYTHON: Sequence[Form] = (
    *python_loops.FORMS,
    *python_assignments.FORMS,
    *python_comparisons.FORMS,
    *python_branches.FORMS,
    *python_strings.FORMS,
)


def _by_name(forms: Sequence[Form]) -> Mapping[str, Form]:
    return {form.name: form for form in forms}


STYLES: Mapping[str, Mapping[str, Form]] = {
    "python": _by_name((*PYTHON, *names.FORMS)),
    "java": _by_name((*BRACES, brace_comparisons.EXPLICIT_JAVA, *names.FORMS)),
    "c": _by_name((*BRACES, brace_comparisons.EXPLICIT_C, *c_access.FORMS, *names.FORMS)),
}
"""Language → name → style."""

NAMES = frozenset(name for styles in STYLES.values() for name in styles)
"""Every style's name, of whatever language."""
