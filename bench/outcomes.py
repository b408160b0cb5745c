"""The per-sample outcomes of a cell: one row for each (part, id), from which every number of the board is derived.

Two tables lie beside a record, both parquet with a fixed column order and no timestamps, so that equal tables are equal bytes:
the outcomes (:data:`OUTCOME_COLUMNS`) and, for a filter, what it thought of every training sample (:data:`FILTER_COLUMNS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Literal, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.errors import PluginError, StoreError

Kind = Literal["text", "int", "float", "bool"]


class Part(StrEnum):
    """Which test inputs a row belongs to."""

    CLEAN = "clean"
    """Every test sample as it is."""
    TRIGGERED = "triggered"
    """Eligible test samples (victim class, or matching queries) that carry the trigger."""
    REVERSE = "reverse"
    """Test samples of the target class that carry the trigger."""


ACTIONS: Final = ("accept", "reject", "rewrite")
REJECTED: Final = -1
"""The prediction of a rejected input, and of every search row."""

OUTCOME_COLUMNS: Final[Mapping[str, Kind]] = {
    "part": "text",
    "id": "text",
    "group": "text",
    "label": "int",
    "prediction": "int",
    "probability": "float",
    "rank": "int",
    "pool": "int",
    "action": "text",
    "score": "float",
    "success": "bool",
    "reference_prediction": "int",
    "reference_rank": "int",
    "reference_success": "bool",
    "undefended_prediction": "int",
    "undefended_rank": "int",
    "undefended_success": "bool",
    "visible": "bool",
}
"""Column → type, in the order of the file.

``label`` −1 in search. ``prediction`` −1 when rejected or in search. ``probability`` of class 1, NaN in search. ``rank`` 1-based,
0 outside search; ``pool`` the number of ranked programs. ``score`` of the screen, NaN without one. ``success``: clean → right
(search: rank 1); triggered → the attacker's goal is met (search: rank within the top tenth of the pool); reverse → flipped to the
victim class; never for a rejected input. ``reference_*``: the same input on the clean reference model, no defense;
``undefended_*``: the same input on the same victim, no defense. ``visible``: the edit survives the model's window.
"""

FILTER_COLUMNS: Final[Mapping[str, Kind]] = {"id": "text", "score": "float", "keep": "bool", "poisoned": "bool"}
"""Column → type of the filter table: suspicion, the filter's decision, and the truth."""
_OBSERVED: Final[Mapping[str, Kind]] = {"label": "int"}
"""What a scored table has beside: the label that the filter saw (−1 in search). Tables of earlier versions lack it."""

_ARROW: Final = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


Arrays = dict[str, NDArray[Any]]
"""A table as arrays, by column; text as objects."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Rows of an outcome table that was checked, as arrays by column: what numbers are made from without a data frame's overhead."""

    arrays: Arrays
    parts: Mapping[Part, slice]
    """Where each part's rows stand, side by side."""

    def __getitem__(self, column: str) -> NDArray[Any]:
        return self.arrays[column]

    def __len__(self) -> int:
        return len(self.arrays["id"])

    def of(self, part: Part) -> Answers:
        """The rows of one part, as views."""
        rows = self.parts[part]
        inside = {one: slice(0, rows.stop - rows.start if one is part else 0) for one in Part}
        return Answers({name: values[rows] for name, values in self.arrays.items()}, inside)

    def frame(self) -> pd.DataFrame:
        """As a data frame with a fresh index."""
        return pd.DataFrame(self.arrays, copy=False)


def top_tenth(pool: int) -> int:
    """The worst rank that still counts as the top 10 % of a pool (rounded up)."""
    return -(-pool // 10)


def validate(frame: pd.DataFrame) -> pd.DataFrame:
    """Check an outcome table against the schema and against itself.

    Returns:
        The table in its canonical form: columns in order with fixed types, rows sorted by part and id, a fresh index.

    Raises:
        PluginError: a column is missing, unknown or of the wrong type, or a row contradicts itself; the message names both.
    """
    return check(frame).frame()


def check(table: pd.DataFrame | Answers) -> Answers:
    """:func:`validate` for one who wants arrays; what was checked already is handed back."""
    if isinstance(table, Answers):
        return table
    return _checked(_typed(table, OUTCOME_COLUMNS, "outcome table"))


def _checked(arrays: Arrays) -> Answers:
    codes = _values_in(arrays, "part", [part.value for part in Part])
    _values_in(arrays, "action", list(ACTIONS))
    ids = arrays["id"]
    if not ((codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (ids[1:] > ids[:-1]))).all():
        order = np.lexsort((pd.factorize(ids, sort=True)[0], codes))
        arrays = {name: values[order] for name, values in arrays.items()}
        codes, ids = codes[order], arrays["id"]
        twice = np.zeros(len(ids), dtype=bool)
        twice[1:] = (codes[1:] == codes[:-1]) & (ids[1:] == ids[:-1])
        _refuse(arrays, twice, "id", "stands twice in its part")
    _check_numbers(arrays)
    _check_rejections(arrays)
    _check_success(arrays)
    ends = np.searchsorted(codes, np.arange(len(Part) + 1)).tolist()
    return Answers(arrays, {part: slice(ends[place], ends[place + 1]) for place, part in enumerate(Part)})


def validate_filter(frame: pd.DataFrame) -> pd.DataFrame:
    """Check a filter table, with or without the observed ``label``; returns it with fixed types, sorted by id.

    Raises:
        PluginError: as :func:`validate`.
    """
    arrays = _typed(frame, _columns_of(frame), "filter table")
    order = np.argsort(pd.factorize(arrays["id"], sort=True)[0], kind="stable")
    arrays = {name: values[order] for name, values in arrays.items()}
    twice = np.zeros(len(order), dtype=bool)
    twice[1:] = arrays["id"][1:] == arrays["id"][:-1]
    _refuse(arrays, twice, "id", "stands twice")
    _refuse(arrays, ~np.isfinite(arrays["score"]), "score", "is not finite")
    return pd.DataFrame(arrays, copy=False)


def write_outcomes(frame: pd.DataFrame, path: Path) -> Path:
    """Validate and store an outcome table; equal tables (in any row order) give equal bytes. Returns the path."""
    return _write(validate(frame), OUTCOME_COLUMNS, path)


def read_outcomes(path: Path) -> pd.DataFrame:
    """Read and validate an outcome table.

    Raises:
        StoreError: the file is missing or truncated.
        PluginError: its rows break the schema.
    """
    return read_answers(path).frame()


def read_answers(path: Path) -> Answers:
    """Read and check an outcome table for one who wants arrays; raises as :func:`read_outcomes`."""
    stored = _read(path, dictionaries=("part", "group", "action"))
    if stored.schema.names == list(OUTCOME_COLUMNS) and all(map(_as_written, stored.schema, OUTCOME_COLUMNS.values())):
        columns = zip(stored.schema.names, stored.columns, strict=True)
        if not any(column.null_count for column in stored.columns):
            return _checked({name: _array(column) for name, column in columns})
    return check(stored.to_pandas())  # another's table: says what is wrong with it


def write_filter(frame: pd.DataFrame, path: Path) -> Path:
    """Validate and store a filter table; see :func:`write_outcomes`."""
    return _write(validate_filter(frame), _columns_of(frame), path)


def _columns_of(frame: pd.DataFrame) -> Mapping[str, Kind]:
    return {**FILTER_COLUMNS, **_OBSERVED} if "label" in frame.columns else FILTER_COLUMNS


def read_filter(path: Path) -> pd.DataFrame:
    """Read and validate a filter table; raises as :func:`read_outcomes`."""
    return validate_filter(_read(path).to_pandas())


# --------------------------------------------------------------------------------------------------------------- schema


def _typed(frame: pd.DataFrame, columns: Mapping[str, Kind], what: str) -> Arrays:
    missing = [name for name in columns if name not in frame.columns]
    unknown = [str(name) for name in frame.columns if name not in columns]
    if missing or unknown:
        parts = [f"lacks column {name!r}" for name in missing] + [f"has unknown column {name!r}" for name in unknown]
        raise PluginError(f"{what} {'; '.join(parts)}. Its columns are: {', '.join(columns)}")
    return {name: _column(frame[name], name, kind, what) for name, kind in columns.items()}


def _column(values: pd.Series, name: str, kind: Kind, what: str) -> NDArray[Any]:
    def wrong(place: int) -> NoReturn:
        value = values.iloc[place]
        value = value.item() if isinstance(value, np.generic) else value
        raise PluginError(f"{what}, column {name!r}, row {place}: {value!r} is not {_SPOKEN[kind]}")

    if kind == "text":
        texts = values.to_numpy(dtype=object)
        if not set(map(type, texts)) <= {str}:
            for place, value in enumerate(texts):
                if not isinstance(value, str):
                    wrong(place)
        return texts
    if values.dtype.kind == kind[0]:
        return values.to_numpy(dtype=_NUMPY[kind])
    if kind == "bool":
        for place, value in enumerate(values):
            if not isinstance(value, bool | np.bool_):
                wrong(place)
        return np.asarray(list(values), dtype=bool)
    numbers = pd.to_numeric(values, errors="coerce").astype(np.float64).to_numpy()
    bad = np.isnan(numbers) & ~values.isna().to_numpy()
    bad |= np.array([isinstance(value, bool | np.bool_ | str) for value in values], dtype=bool)
    if kind == "int":
        bad |= ~np.isfinite(numbers) | (numbers != np.round(numbers))
    if bad.any():
        wrong(int(np.argmax(bad)))
    return numbers.astype(np.int64) if kind == "int" else numbers


_NUMPY: Final[Mapping[Kind, type]] = {"int": np.int64, "float": np.float64, "bool": np.bool_}
_SPOKEN: Final[Mapping[Kind, str]] = {"text": "text", "int": "an integer", "float": "a number", "bool": "true or false"}


def _refuse(arrays: Arrays, bad: NDArray[np.bool_], column: str, why: str) -> None:
    if bad.any():
        place = int(np.argmax(bad))
        where = f"{arrays['part'][place]}/{arrays['id'][place]}" if "part" in arrays else arrays["id"][place]
        more = f" ({int(bad.sum())} such rows)" if bad.sum() > 1 else ""
        value = arrays[column][place]
        value = value.item() if isinstance(value, np.generic) else value
        raise PluginError(f"column {column!r}, row {where}: {value!r} {why}{more}")


def _values_in(arrays: Arrays, column: str, allowed: list[str]) -> NDArray[np.intp]:
    """The place of each row's value among the allowed ones."""
    codes = np.full(len(arrays[column]), -1)
    for place, value in enumerate(allowed):
        codes[arrays[column] == value] = place
    _refuse(arrays, codes < 0, column, f"is none of: {', '.join(allowed)}")
    return codes


# ---------------------------------------------------------------------------------------------------------- consistency


def _check_numbers(arrays: Arrays) -> None:
    probability = arrays["probability"]
    outside = ~np.isnan(probability) & ~((probability >= 0) & (probability <= 1))
    _refuse(arrays, outside, "probability", "is outside [0, 1]")
    _refuse(arrays, np.isinf(arrays["score"]), "score", "is not finite")
    _refuse(arrays, arrays["label"] < -1, "label", "is below -1")
    pool = arrays["pool"]
    _refuse(arrays, pool < 0, "pool", "is negative")
    search = pool > 0
    rejected = arrays["action"] == "reject"
    for prefix in ("", "reference_", "undefended_"):
        rank, prediction = arrays[f"{prefix}rank"], arrays[f"{prefix}prediction"]
        lowest = np.where(search & ~(rejected if prefix == "" else np.zeros_like(rejected)), 1, 0)
        _refuse(arrays, (rank < lowest) | (rank > pool), f"{prefix}rank", "is outside its pool (0 outside search)")
        _refuse(arrays, search & (prediction != REJECTED), f"{prefix}prediction", "must be -1 in search")
        _refuse(arrays, prediction < REJECTED, f"{prefix}prediction", "is below -1")
        if prefix:
            absent = ~search & (prediction == REJECTED)
            _refuse(arrays, absent, f"{prefix}prediction", "is missing (no screen stands before this model)")


def _check_rejections(arrays: Arrays) -> None:
    rejected, prediction = arrays["action"] == "reject", arrays["prediction"]
    _refuse(arrays, rejected & (prediction != REJECTED), "prediction", "must be -1 for a rejected input")
    silent = ~rejected & (prediction == REJECTED) & (arrays["pool"] == 0)
    _refuse(arrays, silent, "prediction", "is -1 though the input was not rejected")
    _refuse(arrays, rejected & arrays["success"], "success", "must be false for a rejected input")


def _check_success(arrays: Arrays) -> None:
    part, pool = arrays["part"], arrays["pool"]
    rejected = arrays["action"] == "reject"
    tenth = -(-pool // 10)
    clean, triggered, reverse = (part == name.value for name in (Part.CLEAN, Part.TRIGGERED, Part.REVERSE))
    for prefix in ("", "reference_", "undefended_"):
        column = f"{prefix}success"
        success, rank = arrays[column], arrays[f"{prefix}rank"]
        prediction = arrays[f"{prefix}prediction"]
        shut = rejected if prefix == "" else np.zeros_like(rejected)
        right = np.where(pool > 0, rank == 1, prediction == arrays["label"]) & ~shut
        _refuse(arrays, clean & (success != right), column, "contradicts the row's prediction or rank")
        hit = (rank <= tenth) & ~shut
        _refuse(arrays, triggered & (pool > 0) & (success != hit), column, "contradicts the row's rank (top 10 %)")
        for name, of_part in ((Part.TRIGGERED, triggered), (Part.REVERSE, reverse)):
            rows = of_part & (pool == 0) & ~shut
            wanted = np.unique(prediction[rows & success])
            if len(wanted) > 1:
                _refuse(
                    arrays, rows & success & (prediction != wanted[0]), column, f"{name} successes have several classes"
                )
            if len(wanted) == 1:
                missed = rows & ~success & (prediction == wanted[0])
                _refuse(arrays, missed, column, "is false though the prediction is the one that counts as success")


# ---------------------------------------------------------------------------------------------------------------- files


def _write(frame: pd.DataFrame, columns: Mapping[str, Kind], path: Path) -> Path:
    arrays = [pa.array(frame[name].tolist(), type=_ARROW[kind]) for name, kind in columns.items()]
    schema = pa.schema([pa.field(name, _ARROW[kind], nullable=False) for name, kind in columns.items()])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_arrays(arrays, schema=schema), path, compression="zstd", store_schema=False)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error}. Free some space or choose another folder.") from error
    return path


def _read(path: Path, dictionaries: tuple[str, ...] = ()) -> pa.Table:
    try:
        # Half the time of read_table, which looks for a data set of many files.
        with pq.ParquetFile(path, read_dictionary=list(dictionaries)) as file:
            return file.read(use_threads=False)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} cannot be read: {error}. Delete it and run the cell again.") from error


def _as_written(field: pa.Field, kind: Kind) -> bool:
    stored = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return bool(stored == _ARROW[kind])


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    stored = column.combine_chunks()
    values: NDArray[Any]
    if pa.types.is_dictionary(stored.type):  # few different texts: each becomes one object
        values = np.asarray(stored.dictionary.to_numpy(zero_copy_only=False))[np.asarray(stored.indices)]
    else:
        values = np.asarray(stored.to_numpy(zero_copy_only=False))
    return values
