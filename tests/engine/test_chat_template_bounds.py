"""A template cannot be made to render without end."""

import time
from typing import Any

import pytest

from engine.chat_template import ChatTemplate, ChatTemplateError

FOLLOWS = """
{%- macro kind(schema, root, seen) -%}
{%- if '$ref' in schema -%}
{%- if schema['$ref'] in seen -%}any{%- else -%}
{{ kind(root['$defs'][schema['$ref'].split('/')[-1]], root, seen + [schema['$ref']]) }}{%- endif -%}
{%- else -%}
{%- for name, part in (schema.properties or {}).items() -%}{{ name }}:{{ kind(part, root, seen) }},{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{ kind(response_schema, response_schema, []) }}"""


def web(n: int) -> dict[str, Any]:
    """Objects that all refer to each other: n! ways through them."""
    members = {f"p{j}": {"$ref": f"#/$defs/d{j}"} for j in range(n)}
    return {"$ref": "#/$defs/d0", "$defs": {f"d{i}": {"properties": members} for i in range(n)}}


def test_references_that_fan_out_are_refused_soon() -> None:
    template = ChatTemplate(FOLLOWS, {})
    assert template.render([], response_schema=web(3)).count(":") > 3
    began = time.process_time()
    with pytest.raises(ChatTemplateError, match="fewer references"):
        template.render([], response_schema=web(30))
    assert time.process_time() - began < 3
    assert template.render([], response_schema=web(3)), "each rendering counts for itself"
