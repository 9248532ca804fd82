"""Fails for every function of more than 40 lines that does not say why: `# long: <reason>` on its `def` line."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

LINES_MAX = 40
FOLDERS = ("bench", "service", "tests", "tools")


def long_functions(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > LINES_MAX and "# long: " not in lines[node.lineno - 1]:
            yield f"{path}:{node.lineno} {node.name} has {length} lines"


def main() -> int:
    found = [each for folder in FOLDERS for path in sorted(Path(folder).rglob("*.py")) for each in long_functions(path)]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
