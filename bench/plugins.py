"""Finding, listing and building plugins.

Plugins are found by walking the folders ``tasks``, ``attacks`` and ``defenses/<family>`` and by the entry points
``codebackdoorbench.tasks``, ``.attacks``, ``.filters``, ``.trainings``, ``.repairs``, ``.screens``, and in files given by path. Finding
reads names from the source without importing; a module is imported when one of its plugins is asked for, and a plugin
whose import fails is listed with its reason.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeGuard

import pydantic

from bench.contracts import DEFENSE_FAMILIES, FAMILIES, Plugin
from bench.errors import BenchError, ConfigError, PluginError, suggest

FOLDERS: Mapping[str, str] = {
    "task": "tasks",
    "attack": "attacks",
    **{family: f"defenses.{family}" for family in DEFENSE_FAMILIES},
}
ENTRY_POINTS: Mapping[str, str] = {family: f"codebackdoorbench.{family}s" for family in FAMILIES}
ADDED_LATER: Mapping[str, bool] = {"added later": True}
"""``metadata`` of a parameter that a plugin got when results existed already. Its default must do what was done before: at the
default it stays out of :func:`parameters_of`, and so out of keys, which are then those of the earlier results."""


@dataclass(frozen=True)
class Listing:
    """One plugin that was found, imported or not.

    Attributes:
        name: as a suite names it.
        family: task, attack, filter, training, repair or screen.
        origin: module or file it comes from.
        broken: why its import failed, or ``None``.
    """

    name: str
    family: str
    origin: str
    broken: str | None = None


@dataclass
class _Entry:
    name: str
    family: str
    origin: str
    module: str | None = None
    path: Path | None = None
    target: str | None = None
    loaded: type[Plugin] | None = None
    source: Path | None = None
    """The file in the tree that the name was read from."""


def names_in_source(source: str) -> Iterator[tuple[str, str]]:
    """(class name, plugin name) for every derived class whose body sets ``name = "…"``, read without importing.

    Raises:
        SyntaxError: the source does not parse (``ValueError`` for null bytes).
    """
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef) or not node.bases:
            continue
        for statement in node.body:
            if not isinstance(statement, ast.Assign | ast.AnnAssign):
                continue
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            value = statement.value
            named = any(isinstance(t, ast.Name) and t.id == "name" for t in targets)
            if named and isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield node.name, value.value


class Registry:
    """All plugins, by family and name."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], _Entry] = {}

    def _add(self, entry: _Entry) -> None:
        key = (entry.family, entry.name)
        known = self._entries.get(key)
        if known is not None and known.origin != entry.origin:
            raise ConfigError(
                f"two {entry.family} plugins are called {entry.name!r}: {known.origin} and {entry.origin}. Rename one of them."
            )
        if known is None:
            self._entries[key] = entry

    def discover(self) -> Registry:
        """Walk the project's folders and the installed entry points. Returns itself."""
        for family, package in FOLDERS.items():
            root = importlib.import_module(package)
            for base in root.__path__:
                for path in sorted(Path(base).iterdir()):
                    source = path / "__init__.py" if path.is_dir() else path
                    if source.suffix != ".py" or not source.is_file() or path.name.startswith("_"):
                        continue
                    module = f"{package}.{path.stem}"
                    try:
                        names = [name for _, name in names_in_source(source.read_text(encoding="utf-8"))]
                    except (SyntaxError, ValueError, OSError):
                        names = [path.stem]  # importing it tells the reason, to whoever lists or asks for it
                    for name in names:
                        self._add(_Entry(name, family, module, module=module, source=source.resolve()))
        for family, group in ENTRY_POINTS.items():
            for point in importlib.metadata.entry_points(group=group):
                self._add(_Entry(point.name, family, f"entry point {point.value}", target=point.value))
        return self

    def add_file(self, path: Path) -> list[Listing]:
        """Register the plugins of a file outside the tree (imported at once, since its family is not told by its folder).

        A file of the tree, already registered by :meth:`discover`, gives its own plugins.

        Raises:
            ConfigError: the file is missing, does not import, or holds no plugin.
        """
        path = path.resolve()
        if not path.is_file():
            raise ConfigError(f"plugin file {path} does not exist")
        in_tree = [e for e in self._entries.values() if e.source == path]
        if in_tree:
            for entry in in_tree:
                self.load(entry.family, entry.name)
            return [Listing(e.name, e.family, e.origin) for e in in_tree]
        # The name is derived from the path, so that worker processes and pickles agree on it.
        module_name = f"codebackdoorbench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
        module = sys.modules.get(module_name)
        if module is None:
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise ConfigError(f"plugin file {path} is not a Python module")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                _SOURCES[module_name] = hashlib.sha256(path.read_bytes()).hexdigest()
                spec.loader.exec_module(module)
            except (Exception, SystemExit) as error:
                del sys.modules[module_name]
                raise ConfigError(f"plugin file {path} does not import: {type(error).__name__}: {error}") from error
        found = []
        for value in vars(module).values():
            if _is_plugin(value) and value.__module__ == module_name:
                _the_only(module, value.family, value.name, str(path))
                entry = _Entry(value.name, value.family, str(path), path=path, loaded=value)
                self._add(entry)
                found.append(Listing(entry.name, entry.family, entry.origin))
        if not found:
            raise ConfigError(
                f"plugin file {path} holds no plugin class (a concrete subclass of one of: {', '.join(FAMILIES)})"
            )
        return found

    def files(self) -> list[Path]:
        """Plugin files outside the tree, so that worker processes can load the same ones."""
        return sorted({e.path for e in self._entries.values() if e.path is not None})

    def names(self, family: str) -> list[str]:
        """The registered names of a family, sorted."""
        return sorted(name for f, name in self._entries if f == family)

    def defense_family(self, name: str) -> str:
        """The family of a defense name, or of ``family/name`` where a name (``random``, ``oracle``) stands in several.

        Raises:
            ConfigError: unknown, or ambiguous without its family.
        """
        if "/" in name:
            family, _, bare = name.partition("/")
            if family not in DEFENSE_FAMILIES:
                raise ConfigError(f"unknown defense family {family!r} in {name!r}.{suggest(family, DEFENSE_FAMILIES)}")
            self._find(family, bare)
            return family
        families = [f for f in DEFENSE_FAMILIES if (f, name) in self._entries]
        if not families:
            known = [n for f in DEFENSE_FAMILIES for n in self.names(f)]
            raise ConfigError(f"unknown defense {name!r}.{suggest(name, known)}")
        if len(families) > 1:
            options = ", ".join(f"{f}/{name}" for f in families)
            raise ConfigError(f"defense {name!r} stands in several families; write one of: {options}")
        return families[0]

    def _find(self, family: str, name: str) -> _Entry:
        entry = self._entries.get((family, name))
        if entry is None:
            raise ConfigError(f"unknown {family} {name!r}.{suggest(name, self.names(family))}")
        return entry

    def load(self, family: str, name: str) -> type[Plugin]:
        """Import a plugin's class.

        Raises:
            ConfigError: unknown name (with a suggestion), or its import fails (with the reason).
            PluginError: the class does not follow the family's contract.
        """
        entry = self._find(family, name)
        if entry.loaded is not None:
            return entry.loaded
        try:
            if entry.target is not None:
                module_name, _, attribute = entry.target.partition(":")
                value = getattr(importlib.import_module(module_name), attribute)
            else:
                assert entry.module is not None
                value = _the_only(importlib.import_module(entry.module), family, name, entry.origin)
        except BenchError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"{family} {name!r} ({entry.origin}) does not import: {type(error).__name__}: {error}"
            ) from error
        if not _is_plugin(value) or value.family != family:
            raise PluginError(f"{entry.origin} is not a {family} plugin")
        if value.name != name:
            raise PluginError(
                f"{entry.origin} is registered as {name!r} but calls itself {value.name!r}; make them equal"
            )
        loaded: type[Plugin] = value
        entry.loaded = loaded
        return loaded

    def listings(self) -> list[Listing]:
        """Every plugin, with the reason where its import fails. Imports all of them."""
        rows = []
        for (family, name), entry in sorted(
            self._entries.items(), key=lambda kv: (list(FAMILIES).index(kv[0][0]), kv[0][1])
        ):
            broken = None
            try:
                self.load(family, name)
            except (ConfigError, PluginError) as error:
                broken = str(error)
            rows.append(Listing(name, family, entry.origin, broken))
        return rows

    def build(self, family: str, name: str, parameters: Mapping[str, Any] | None = None) -> Plugin:
        """Make a plugin with checked parameters; see :func:`build`."""
        return build(self.load(family, name), parameters or {})

    def source_digest(self, family: str, name: str) -> str:
        """sha256 of the plugin's source (a package: all its files), told in records.

        It stands in the key of scores, so that a record is of the source that it names. The keys of the stages before tell a plugin of
        the tree or of an installed package by its version, and one of a file by its source (:func:`source_of`).
        """
        cls = self.load(family, name)
        if cls.__module__ in _SOURCES:
            return _SOURCES[cls.__module__]
        file = Path(inspect.getfile(cls))
        files = sorted(file.parent.glob("*.py")) if file.name == "__init__.py" else [file]
        total = hashlib.sha256()
        for part in files:
            total.update(part.read_bytes())
        return total.hexdigest()


_SOURCES: dict[str, str] = {}
"""Module -> sha256 of the file outside the tree that it was imported from, as it was then."""


def source_of(plugin: Plugin) -> str | None:
    """sha256 of the file outside the tree that a plugin was imported from, for its keys; ``None`` where it comes from elsewhere.

    Somebody who writes a plugin edits its file again and again, and a number of the edition before would be a wrong one: so the source
    of such a file is the version. What the file imports from other files is not in it; ``origin`` is the place for that. Plugins of the
    tree and of installed packages have versions, which are raised with every change of behaviour.
    """
    return _SOURCES.get(type(plugin).__module__)


def _is_plugin(value: object) -> TypeGuard[type[Plugin]]:
    return (
        inspect.isclass(value)
        and issubclass(value, Plugin)
        and not inspect.isabstract(value)
        and isinstance(getattr(value, "name", None), str)
        and value not in FAMILIES.values()
    )


def _the_only(module: ModuleType, family: str, name: str, origin: str) -> type[Plugin]:
    """The one plugin class of a module with this family and name.

    Raises:
        PluginError: there is none.
        ConfigError: there are several.
    """
    classes = {v for v in vars(module).values() if _is_plugin(v) and v.family == family and v.name == name}
    if not classes:
        raise PluginError(f"{origin} names a plugin {name!r} that is no concrete {family} plugin")
    if len(classes) > 1:
        places = " and ".join(sorted(f"{v.__module__}.{v.__qualname__}" for v in classes))
        raise ConfigError(f"two {family} plugins of {origin} are called {name!r}: {places}. Rename one of them.")
    return classes.pop()


@functools.cache
def _adapter(cls: type[Plugin]) -> pydantic.TypeAdapter[Any]:
    """What checks the parameters of a plugin: made once, since a suite of thousands of cells asks for it as often."""
    return pydantic.TypeAdapter(cls)


def parameters_of(plugin: Plugin) -> dict[str, Any]:
    """Effective parameters of a plugin, JSON-ready; ``build(type(plugin), parameters_of(plugin))`` gives an equal plugin.

    Parameters :data:`ADDED_LATER` are left out at their defaults.
    """
    dumped: dict[str, Any] = _adapter(type(plugin)).dump_python(plugin, mode="json")
    for parameter in dataclasses.fields(plugin):  # type: ignore[arg-type]
        later = parameter.metadata.get("added later", False)
        if later and getattr(plugin, parameter.name) == parameter.default:
            del dumped[parameter.name]
    return dumped


def build(cls: type[Plugin], parameters: Mapping[str, Any]) -> Plugin:
    """Make a plugin from parameters as a suite file holds them.

    Raises:
        ConfigError: an unknown parameter (with a suggestion), a value of the wrong type, or one that JSON cannot hold.
        PluginError: the class is not a frozen dataclass, or the type of a parameter cannot be checked.
    """
    where = f"{cls.__module__}.{cls.__qualname__}"
    params = getattr(cls, "__dataclass_params__", None)
    if params is None or not params.frozen:
        raise PluginError(f"{where} must be a dataclass (frozen=True, kw_only=True)")
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in parameters:
        if key not in known:
            raise ConfigError(
                f"{cls.family} {cls.name!r} has no parameter {key!r}.{suggest(key, known) if known else ' It has none.'}"
            )
    try:
        plugin: Plugin = _adapter(cls).validate_python(dict(parameters))
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "parameters"
        raise ConfigError(
            f"{cls.family} {cls.name!r}, parameter {place}: {first['msg']} (got {first.get('input')!r})"
        ) from error
    except (pydantic.PydanticUserError, pydantic.errors.PydanticUndefinedAnnotation) as error:
        raise PluginError(f"a parameter of {where} has a type that cannot be checked: {error}") from error
    try:
        json.dumps(parameters_of(plugin), allow_nan=False)
    except ValueError as error:
        raise ConfigError(f"{cls.family} {cls.name!r}: a parameter is not a finite number ({error})") from error
    return plugin
