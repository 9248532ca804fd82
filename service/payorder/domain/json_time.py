"""How a time is written in JSON."""

from datetime import datetime


def to_json_time(time: datetime) -> str:
    """As protobuf writes a Timestamp of whole milliseconds: with three decimals, or with none."""
    text = time.isoformat(timespec="milliseconds").removesuffix("+00:00")
    return text.removesuffix(".000") + "Z"
