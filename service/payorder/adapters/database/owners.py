"""Whose an order must be, as a condition that any owner fulfils when it does not matter."""

from sqlalchemy import ColumnElement, Text, bindparam, func

from payorder.adapters.database.tables import orders
from payorder.domain.origin import ANY_OWNER, Owner

# Only beside an id, which is what the row is found by. Without an owner it compares the row's own with itself.
IS_OWNERS: ColumnElement[bool] = orders.c.owner_sub == func.coalesce(bindparam("owner", type_=Text), orders.c.owner_sub)


def to_owner_parameter(owner: Owner) -> str | None:
    return None if owner is ANY_OWNER else owner
