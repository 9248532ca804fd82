"""A list of texts as one parameter, so that a statement is the same however long the list is, and is prepared once."""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Dialect, Text, bindparam
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class _Texts(TypeDecorator[Sequence[str]]):
    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(Text()) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else json.dumps(list(value))


class _listed(FunctionElement[str]):  # noqa: N801 - reads as the SQL it is
    inherit_cache = True
    type = Text()


def is_one_of(column: ColumnElement[str], name: str) -> ColumnElement[bool]:
    """Whether the column is in the list that is handed in as `name`."""
    return column.bool_op("IN")(_listed(bindparam(name, type_=_Texts())))


# Of an array, and of a JSON list.
_of_array = "(SELECT unnest({}))"
_of_json = "(SELECT value FROM json_each({}))"


@compiles(_listed, "postgresql")
def _postgresql(element: _listed, compiler: Any, **options: Any) -> str:
    return _of_array.format(compiler.process(element.clauses, **options))


@compiles(_listed, "sqlite")
def _sqlite(element: _listed, compiler: Any, **options: Any) -> str:
    return _of_json.format(compiler.process(element.clauses, **options))
