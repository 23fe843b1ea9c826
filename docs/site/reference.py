"""The reference pages of the site, from the code: command line, params, HTTP, Python, data sets."""

import html
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import emotion_yolo


def write_reference(root: Path, out: Path) -> None:
    """Write the reference of the repository `root` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "cli": _command_line(),
        "params": _params((root / "params.yaml").read_text("utf-8")),
        "http": _http(json.loads((root / "docs" / "openapi.json").read_bytes())),
        "python": _python(),
        "datasets": _datasets(root / "configs" / "datasets"),
    }
    for name, text in texts.items():
        (out / f"{name}.md").write_text(text, "utf-8")


def _command_line() -> str:
    command = [sys.executable, "-m", "typer", "emotion_yolo.cli", "utils", "docs", "--name", "emotion-yolo"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    settings = "Its options are the [settings of the service](../service.md#settings).\n"
    return html.unescape(text).replace("## `emotion-yolo serve`\n", f"## `emotion-yolo serve`\n\n{settings}")


@dataclass
class _Param:
    """A key of params.yaml: its value as written, if it is no section, and what the comments say."""

    path: list[str]
    value: str
    meaning: str
    above: str


def _read_params(text: str) -> list[_Param]:
    found: list[_Param] = []
    path: list[str] = []
    above: list[str] = []
    for line in text.splitlines():
        if remark := re.fullmatch(r"\s*# (.+)", line):
            above.append(remark[1])
        elif entry := re.fullmatch(r"( *)([\w-]+):(?: +([^#\s].*?))?(?: +# (.+))?", line):
            indent, key, value, meaning = entry.groups()
            path = [*path[: len(indent) // 2], key]
            found.append(_Param(path, value or "", meaning or "", " ".join(above)))
            above = []
        elif line.strip():  # a value that begins below its key
            found[-1].value = f"{found[-1].value} {line.strip()}".strip()
        else:
            above = []
    return found


def _params(text: str) -> str:
    lines = ["# Params", "", "From the comments of [params.yaml](../../params.yaml), by stage."]
    table: list[str] = []
    for param in _read_params(text):
        name = ".".join(param.path)
        if not param.value or param.above:
            lines, table = [*lines, "", *table], []
            lines += ["", f"{'#' * min(len(param.path) + 1, 4)} {name}"] if not param.value else []
            lines += ["", param.above] if param.above else []
        if param.value:
            table = table or ["| param | default | meaning |", "|---|---|---|"]
            table.append(f"| `{name}` | `{_cell(param.value)}` | {_cell(param.meaning)} |")
        elif param.meaning:
            lines += ["", f"{param.meaning[0].upper()}{param.meaning[1:]}."]
    return "\n".join([*lines, "", *table, ""])


def _http(document: dict[str, Any]) -> str:
    lines = ["# HTTP", "", "From [openapi.json](../openapi.json); [The service](../service.md) says how to use it.", ""]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            lines += [f"## {method.upper()} {path}", "", operation["description"], ""]
            lines += _table(
                ("parameter", "in", "type", "meaning"),
                [
                    (f"`{item['name']}`", item["in"], _type(item["schema"]), item.get("description", ""))
                    for item in operation.get("parameters", [])
                ],
            )
            content = operation.get("requestBody", {}).get("content", {})
            rows = [(f"`{media}`", _type(body.get("schema", {}))) for media, body in content.items()]
            lines += _table(("body", "type"), rows)
            answers = operation["responses"].items()
            lines += _table(
                ("status", "answer", "type"),
                [
                    (
                        status,
                        answer["description"],
                        "<br>".join(_type(body.get("schema", {})) for body in answer.get("content", {}).values()),
                    )
                    for status, answer in answers
                ],
            )
    lines += ["## Schemas", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"### {name}", "", schema.get("description", ""), ""]
        if "enum" in schema:
            lines += [", ".join(f"`{value}`" for value in schema["enum"]), ""]
        fields = schema.get("properties", {}).items()
        described = [(f"`{field}`", _type(of), of.get("description", "")) for field, of in fields]
        lines += _table(("field", "type", "meaning"), described)
    return "\n".join(lines)


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(one) for one in schema[several])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    if schema.get("type") == "object" and "properties" in schema:
        return ", ".join(f"`{name}`: {_type(of)}" for name, of in schema["properties"].items())
    if "format" in schema or "contentMediaType" in schema:
        return f"{schema.get('type', 'string')} ({schema.get('format', 'binary')})"
    return str(schema.get("type", "any"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows), ""]


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _python() -> str:
    lines = ["# Python", "", "The names of `emotion_yolo`; [Use it from Python](../python.md) has examples.", ""]
    for name in emotion_yolo.__all__:
        thing = getattr(emotion_yolo, name)
        lines += [f"## {name}", ""]
        if inspect.isclass(thing):
            lines += [_docstring(thing), ""]
            for member, value in _members(thing):
                function = getattr(value, "__func__", value)
                lines += [f"### {name}.{member}", ""]
                lines += [] if isinstance(value, property) else _signature(member, function)
                lines += [_docstring(function), ""]
        else:
            lines += [*_signature(name, thing), _docstring(thing), ""]
    return "\n".join(lines)


def _members(of: type) -> Iterator[tuple[str, Any]]:
    """Yield the public methods and properties that the package itself gives a class."""
    seen: set[str] = set()
    for parent in of.__mro__:
        if not parent.__module__.startswith("emotion_yolo"):
            continue
        for name, value in vars(parent).items():
            plain = getattr(value, "__func__", value)
            described = inspect.isfunction(plain) or isinstance(value, property)
            if described and not name.startswith("_") and name not in seen:
                seen.add(name)
                yield name, value


def _signature(name: str, function: Callable[..., Any]) -> list[str]:
    signature = str(inspect.signature(function))
    signature = re.sub(r"numpy\.ndarray\[.+?numpy\.dtype\[numpy\.(\w+)\]\]", r"NDArray[\1]", signature)
    signature = re.sub(r"<function (\w+) at \w+>", r"\1", signature)
    return ["```python", re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", f"{name}{signature}"), "```", ""]


def _docstring(of: Any) -> str:
    text = inspect.getdoc(of) or ""
    listed = re.sub(r"^    (?=\S)", "* ", text, flags=re.MULTILINE)
    return re.sub(r"^(Raises|Args|Returns|Attributes):$", r"\1:\n", listed, flags=re.MULTILINE)


def _datasets(folder: Path) -> str:
    lines = ["# Data sets", "", "From the cards in `configs/datasets`; [Data](../data.md#cards) says what they do.", ""]
    for path in sorted(folder.glob("*.yaml")):
        card = yaml.safe_load(path.read_text("utf-8"))
        lines += [f"## {card['title']}", ""]
        rows = [(key, str(card[key])) for key in ("name", "origin", "licence", "citation", "boxes") if key in card]
        rows.append(("classes", ", ".join(map(str, card["classes"]))))
        for split, counts in card.get("counts", {}).items():
            pictures = sum(counts.values()) if isinstance(counts, dict) else counts
            rows.append((f"pictures, {split}", f"{pictures:,}"))
        lines += _table(("", ""), rows)
    return "\n".join(lines)
