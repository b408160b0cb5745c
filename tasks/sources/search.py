"""Code search on installed Python: the first paragraph of a docstring, and its function without the docstring."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bench.context import Context
from bench.samples import Sample, Splits, digest_of
from tasks.sources import installed
from tasks.sources.dealing import deal, fits
from tasks.sources.installed import Function

ROLE = re.compile(r":[A-Za-z:]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
LINK = re.compile(r"https?://\S+")
NO_DESCRIPTION = re.compile(
    r"(see|deprecated|alias|todo|fixme|parameters?|args?|returns?|yields?|raises?|notes?)\b[\s:.-]*$|see \S+\s*$"
)


def query_of(docstring: str, least: int = 3, most: int = 30) -> str | None:
    """The words of a docstring's first paragraph, in lower case, joined by spaces.

    Markup (``:class:`Name```, backquotes) and web addresses are dropped; a word is a run of letters and digits, so that
    ``snake_case`` is two. Directives, doctests and paragraphs shorter than ``least`` words give ``None``; longer ones than
    ``most`` words are cut to their first sentence, and give ``None`` where that is still too long.
    """
    paragraph = re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0]
    lines = paragraph.split("\n")
    if len(lines) > 1 and re.fullmatch(r"\s*[-=~^*]{3,}\s*", lines[1]):
        return None
    if lines[0].startswith((">>>", "..", ":", "@", "Args", "Parameters", "Returns")):
        return None
    # A list of fields that follows the sentence without a blank line is not part of it.
    kept = []
    for line in lines:
        if re.match(r"\s*(:\w+|@\w+|>>>|\.\. |Args:|Parameters|Returns)", line):
            break
        kept.append(line)
    text = LINK.sub(" ", ROLE.sub(r"\1", " ".join(kept)))
    words = _words(text)
    if len(words) > most:
        words = _words(re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0])
    # Words of other scripts would be lost above: such docstrings are no queries.
    readable = sum(character.isascii() for character in text) >= 0.95 * len(text)
    query = " ".join(words)
    if not (least <= len(words) <= most and readable) or NO_DESCRIPTION.match(query):
        return None
    return query


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


def splits(
    sizes: Mapping[str, int],
    context: Context,
    min_lines: int = 3,
    max_lines: int = 20,
    max_tokens: int = 110,
) -> Splits:
    """Build the data: functions split by module, near-duplicates and repeated queries removed.

    Args:
        sizes: samples of ``train``, ``valid``, ``budget`` and ``test``.
        context: ``context.rng("data")`` draws everything.
        min_lines: fewest non-blank lines of a function (docstring removed).
        max_lines: most.
        max_tokens: most lexical tokens.

    Raises:
        bench.errors.DataError: the installed packages hold too few functions with a docstring.
    """
    rng = context.rng("data", "search")
    # Of all queries met, taken or not: a query that two functions answer would have two right answers.
    queries: dict[str, Function] = {}

    def accept(function: Function) -> bool:
        if function.docstring is None or not fits(function.text, (min_lines, max_lines), max_tokens):
            return False
        query = query_of(function.docstring)
        return query is not None and queries.setdefault(query, function) is function

    dealt = deal(installed.modules(), sizes, accept, rng)
    asked = {id(function): query for query, function in queries.items()}
    notes: dict[str, Mapping[str, Any]] = {"source": {"name": "embedded", "versions": installed.versions()}}
    parts = {}
    for split, part in dealt.items():
        shuffled = [part[i] for i in rng.permutation(len(part)).tolist()]
        parts[split] = tuple(_sample(function, asked[id(function)]) for function in shuffled)
        notes |= {s.id: {"function": f.qualified} for s, f in zip(parts[split], shuffled, strict=True)}
    return Splits(**parts, notes=notes)


def _sample(function: Function, query: str) -> Sample:
    name = digest_of({"module": function.module, "function": function.qualified, "text": function.text})[:16]
    return Sample(name, (function.text,), "python", None, query, function.module)
