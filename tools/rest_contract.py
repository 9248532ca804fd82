"""What the REST edge accepts, as Lua: each HTTP binding of the descriptor set, its path, query names and body names.

python tools/rest_contract.py generated/payments.binpb > generated/rest_contract.lua
"""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from google.api import annotations_pb2, http_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)

HEADER = "-- Made from the descriptor set by tools/rest_contract.py. Run ./dev generate instead of editing.\n"
LITERAL = re.compile(r"\.?[A-Za-z0-9_-]+")
PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)\}")
VERBS = ("get", "post", "delete", "put", "patch")
# These messages are a single string in JSON; the other well-known types are free-form or need rules of their own.
STRINGS_IN_JSON = frozenset({".google.protobuf.Timestamp", ".google.protobuf.Duration"})

LUA_KEYWORDS = frozenset(
    {"and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in"}
    | {"local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while"}
)
LINE_WIDTH_MAX = 100

Messages: TypeAlias = dict[str, DescriptorProto]
Lua: TypeAlias = "str | bool | list[Lua] | dict[str, Lua]"


class UnsupportedBinding(Exception):
    """A binding that the edge could not check; it must not reach a release."""


def main() -> None:
    files = FileDescriptorSet.FromString(Path(sys.argv[1]).read_bytes()).file
    messages = {name: message for file in files for name, message in messages_of(f".{file.package}", file)}
    bindings = [binding for file in files for binding in bindings_of(file, messages)]
    sys.stdout.write(f"{HEADER}return {lua(bindings)}\n")


def messages_of(scope: str, holder: FileDescriptorProto | DescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    nested = holder.message_type if isinstance(holder, FileDescriptorProto) else holder.nested_type
    for message in nested:
        yield f"{scope}.{message.name}", message
        yield from messages_of(f"{scope}.{message.name}", message)


def bindings_of(file: FileDescriptorProto, messages: Messages) -> Iterator[Lua]:
    for service in file.service:
        for method in service.method:
            rules = http_rules(method)
            in_path = {name for rule in rules for name in PARAMETER.findall(path_of(rule))}
            request = messages[method.input_type]
            for rule in rules:
                yield {
                    "rpc": f"{file.package}.{service.name}/{method.name}",
                    "method": verb_of(rule).upper(),
                    "segments": segments(path_of(rule)),
                    "query": query_names(rule, request, in_path),
                    **body_of(rule, request, in_path, messages),
                }


def http_rules(method: MethodDescriptorProto) -> list[http_pb2.HttpRule]:
    if not method.options.HasExtension(annotations_pb2.http):
        return []
    rule = method.options.Extensions[annotations_pb2.http]
    return [rule, *rule.additional_bindings]


def verb_of(rule: http_pb2.HttpRule) -> str:
    verb = str(rule.WhichOneof("pattern"))
    if verb not in VERBS:
        raise UnsupportedBinding(f"a binding has the verb {verb}")
    return verb


def path_of(rule: http_pb2.HttpRule) -> str:
    return str(getattr(rule, verb_of(rule)))


def segments(path: str) -> list[Lua]:
    """Each segment is {literal = text} or {parameter = field name}; "*", "**" and "{id=shelves/*}" are refused."""
    return [segment(text, path) for text in path.removeprefix("/").split("/")]


def segment(text: str, path: str) -> Lua:
    if parameter := PARAMETER.fullmatch(text):
        return {"parameter": parameter[1]}
    if LITERAL.fullmatch(text):
        return {"literal": text}
    raise UnsupportedBinding(f"the path {path} has the segment {text}")


def query_names(rule: http_pb2.HttpRule, request: DescriptorProto, in_path: set[str]) -> dict[str, Lua]:
    """Only a GET takes a query: what a write does stands in its path and its body, where nothing can override it."""
    if verb_of(rule) != "get":
        return {}
    return {
        field.json_name: True
        for field in request.field
        if field.name not in in_path and field.type != field.TYPE_MESSAGE and field.label != field.LABEL_REPEATED
    }


def body_of(rule: http_pb2.HttpRule, request: DescriptorProto, in_path: set[str], messages: Messages) -> dict[str, Lua]:
    if not rule.body:
        return {}
    if rule.body == "*":
        fields = [field for field in request.field if field.name not in in_path]
        return {"body": {"kind": "object", "fields": field_nodes(fields, messages, ())}}
    field = next(field for field in request.field if field.name == rule.body)
    node = field_node(field, messages, ())
    if not isinstance(node, dict) or node["kind"] != "object":
        raise UnsupportedBinding(f"the body {rule.body} is not a message")
    return {"body": node}


def field_nodes(fields: list[FieldDescriptorProto], messages: Messages, above: tuple[str, ...]) -> dict[str, Lua]:
    return {field.json_name: field_node(field, messages, above) for field in fields}


def field_node(field: FieldDescriptorProto, messages: Messages, above: tuple[str, ...]) -> Lua:
    node = value_node(field, messages, above)
    is_map = isinstance(node, dict) and node["kind"] == "map"
    return {"kind": "list", "item": node} if field.label == field.LABEL_REPEATED and not is_map else node


def value_node(field: FieldDescriptorProto, messages: Messages, above: tuple[str, ...]) -> Lua:
    name = field.type_name
    if field.type != field.TYPE_MESSAGE or name in STRINGS_IN_JSON:
        return {"kind": "scalar"}
    if name in above or name.startswith(".google."):
        raise UnsupportedBinding(f"the body field {field.name} of type {name} has no finite table of names")
    message = messages[name]
    if message.options.map_entry:
        value = next(entry for entry in message.field if entry.name == "value")
        return {"kind": "map", "value": value_node(value, messages, (*above, name))}
    return {"kind": "object", "fields": field_nodes(list(message.field), messages, (*above, name))}


def lua(value: Lua, indent: str = "") -> str:
    """Prints a Lua literal; the order is the order of the protos, so that the same set gives the same bytes."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value)
        case list():
            lines = [lua(item, f"{indent}  ") for item in value]
        case dict():
            lines = [f"{lua_key(key)} = {lua(item, f'{indent}  ')}" for key, item in value.items()]
    flat = "{ " + ", ".join(lines) + " }" if lines else "{}"
    if "\n" not in flat and len(indent) + len(flat) <= LINE_WIDTH_MAX:
        return flat
    return "{\n" + "".join(f"{indent}  {line},\n" for line in lines) + f"{indent}}}"


def lua_key(name: str) -> str:
    return f'["{name}"]' if name in LUA_KEYWORDS else name


if __name__ == "__main__":
    main()
