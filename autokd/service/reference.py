"""The reference of the REST interface, made from its OpenAPI document: ``python -m autokd.service.reference``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autokd.service.app import STATUS, interface
from autokd.service.process_jobs import ProcessBackend
from autokd.service.service import Service
from autokd.service.settings import ServiceSettings

_INTRODUCTION = """\
# The REST interface

*Made by `python -m autokd.service.reference > docs/rest.md`; a test keeps it so. Do not edit.*

`autokd serve` answers these requests ([A service for a team](service.md)); `autokd remote` and `autokd.Client` send
them. A request bears a token: `Authorization: Bearer TOKEN`. Bodies are JSON, and so is what comes back where no type
is named. An error is `{"error": "words"}`. The service gives the same as an OpenAPI document at
`/api/v1/openapi.json`.

```sh
curl -H "Authorization: Bearer $AUTOKD_TOKEN" "$AUTOKD_SERVICE/api/v1/searches?state=running"
```
"""

Schema = Mapping[str, Any]


def reference() -> str:
    """Return the whole page: a section a request, then what bodies consist of, then the errors."""
    with tempfile.TemporaryDirectory() as folder:
        service = Service(ServiceSettings(folder=Path(folder)), ProcessBackend(Path(folder)))
        document = interface(service).openapi()
        service.database.close()
    parts = document["components"]["schemas"]
    requests = [
        _request(method, path, row) for path, methods in sorted(document["paths"].items())
        for method, row in methods.items()
    ]  # fmt: skip
    names = [name for name in sorted(parts) if "ValidationError" not in name]
    bodies = [_body(name, parts[name]) for name in names]
    return _INTRODUCTION + "\n## Requests\n" + "".join(requests) + "\n## Bodies\n" + "".join(bodies) + _errors()


def _request(method: str, path: str, row: Schema) -> str:
    lines = [f"\n### `{method.upper()} {path}`\n", f"{row['summary']}.\n"]
    if content := row.get("requestBody", {}).get("content", {}).get("application/json"):
        lines.append(f"Takes {_type(content['schema'])}.\n")
    if parameters := row.get("parameters", []):
        lines += ["| parameter | in | type | default | meaning |", "|---|---|---|---|---|"]
        lines += [_parameter(each) for each in parameters]
        lines.append("")
    lines.append("\n".join(_answers(row["responses"])) + "\n")
    return "\n".join(lines)


def _parameter(row: Schema) -> str:
    schema = row["schema"]
    default = "required" if row["required"] else f"`{json.dumps(schema.get('default'))}`"
    meaning = row.get("description", "")
    return f"| `{row['name']}` | {row['in']} | {_type(schema)}{_range(schema)} | {default} | {meaning} |"


def _answers(responses: Schema) -> Iterator[str]:
    for status, row in responses.items():
        if status == "422":
            continue  # of every request with parameters; the table of errors has it
        content = row.get("content", {})
        if "application/json" in content:
            yield f"Gives {status} with {_type(content['application/json']['schema'])}."
        else:
            yield f"Gives {status}{' with ' + ', '.join(content) if content else ''}."


def _body(name: str, schema: Schema) -> str:
    required = schema.get("required", [])
    lines = [f"\n### {name}\n", f"{schema.get('description', '')}\n"]
    lines += ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field, row in schema.get("properties", {}).items():
        default = "required" if field in required else f"`{json.dumps(row.get('default'))}`"
        meaning = " ".join(row.get("description", "").split()).replace("|", "\\|")
        lines.append(f"| `{field}` | {_type(row)}{_range(row)} | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def _type(schema: Schema) -> str:
    """Return the type of a value in words; a body of its own is a link."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    kind = schema.get("type", "JSON")
    if kind == "array":
        return f"a list of {_type(schema['items'])}{'' if '$ref' in schema['items'] else 's'}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), Mapping):
        inner = _type(schema["additionalProperties"])
        return f"an object of {inner if ' ' in inner else inner + 's'}"
    return str(kind)


def _range(schema: Schema) -> str:
    bounds = [f"{word} {schema[key]:.12g}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    if "maxLength" in schema:
        bounds.append(f"at most {schema['maxLength']} characters")
    return f", {' '.join(bounds)}" if bounds else ""


def _errors() -> str:
    """Return the statuses of errors, which every request may give."""
    rows = {
        400: "the request cannot be fulfilled; the words say why",
        401: "no token, or one that is not known or was revoked",
        403: "the role of the token does not allow it",
        404: "there is no such search, or it has no such file",
        409: "the search is in another state than the request needs",
        413: "the body is too large",
        422: "the config file, or a parameter, is wrong; the words say where",
        429: "too many requests of the token, or wrong tokens from the address; `Retry-After` says when to come back",
        503: "the database or Ray does not answer; nothing has changed",
    }
    assert {status for _, status in STATUS} <= set(rows)
    return "\n## Errors\n\n| status | meaning |\n|---|---|\n" + "".join(
        f"| {status} | {words} |\n" for status, words in rows.items()
    )


if __name__ == "__main__":
    print(reference(), end="")
