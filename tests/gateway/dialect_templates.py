"""Chat templates in the manner of known models, as small as they can be, and tokenizers that have their markers."""

import json
from pathlib import Path

from tokenizers import AddedToken

from tests.engine.checkpoints import save_tokenizer

PLAIN = """\
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
HERMES = """\
{%- if tools %}<|im_start|>system
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}</tools><|im_end|>
{% endif %}
{%- for m in messages %}
{%- if m.role == "tool" %}<|im_start|>user
<tool_response>
{{ m.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ m.role }}
{{ m.content }}{% for call in m.tool_calls or [] %}{{ "\n" if not loop.first }}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
QWEN_CODER = HERMES.replace(
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}',
    "<function={{ call.function.name }}>{% for name, value in call.function.arguments.items() %}<parameter={{ name }}>"
    "{{ value }}</parameter>{% endfor %}</function>",
)
MISTRAL = """\
{%- for m in messages %}
{%- if m.role == "user" %}
{%- if loop.first and tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
[INST]{{ m.content }}[/INST]
{%- elif m.role == "tool" %}[TOOL_RESULTS]{"content": {{ m.content | tojson }}, "call_id": "{{ m.tool_call_id }}"}
{%- elif m.tool_calls %}[TOOL_CALLS] [{% for call in m.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception("ids have 9 characters") }}{% endif %}
{{- (call.function | tojson)[:-1] }}, "id": "{{ call.id }}"}{{ ", " if not loop.last }}{% endfor %}]<|im_end|>
{%- else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"""
MISTRAL_V11 = """\
{%- for m in messages %}
{%- if m.role == "tool" %}[TOOL_RESULTS]{{ m.tool_call_id }}[TOOL_CONTENT]{{ m.content }}[/TOOL_RESULTS]
{%- elif m.tool_calls %}{% for call in m.tool_calls %}[TOOL_CALLS]{{ call.function.name }}[ARGS]
{{- call.function.arguments | tojson }}{% endfor %}<|im_end|>
{%- else %}[INST]{{ m.content }}[/INST]{% endif %}{% endfor %}"""
LLAMA = """\
{%- for m in messages %}
{%- if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception("one call at once") }}{% endif %}
{%- set call = m.tool_calls[0].function %}
{{- '{"name": ' }}{{ call.name | tojson }}, "parameters": {{ call.arguments | tojson }}}<|im_end|>
{%- elif m.role == "tool" %}ipython: {{ m.content | tojson }}<|im_end|>
{%- else %}{{ m.role }}: {{ m.content }}<|im_end|>{% endif %}{% endfor %}"""
PYTHONIC = """\
{%- for m in messages %}
{%- if m.tool_calls %}[{% for call in m.tool_calls %}{{ call.function.name }}(
{%- for name, value in call.function.arguments.items() %}{{ name }}={{ value | tojson }}{{ ", " if not loop.last }}
{%- endfor %}){{ ", " if not loop.last }}{% endfor %}]<|im_end|>
{%- else %}{{ m.role }}: {{ m.content }}<|im_end|>{% endif %}{% endfor %}"""
XLAM_2 = """\
{%- for m in messages %}
{%- if m.tool_calls %}[
{%- for call in m.tool_calls %}{{ call.function | tojson }}{{ ", " if not loop.last }}{% endfor %}]
{%- else %}{{ m.role }}: {{ m.content }}{% endif %}<|im_end|>{% endfor %}"""
XLAM_V1 = "You are an AI assistant for function calling.\n" + PLAIN

TEMPLATES = {
    "generic": PLAIN,
    "hermes": HERMES,
    "mistral": MISTRAL,
    "mistral_v11": MISTRAL_V11,
    "llama3_json": LLAMA,
    "pythonic": PYTHONIC,
    "xlam": XLAM_2.replace("call.function | tojson", 'call.function | tojson(separators=(",", ":"))'),
    "xlam_v1": XLAM_V1,
}
"""A template by the dialect that it is to be recognised as."""
WORDS = ("<tool_call>", "</tool_call>", "<think>", "</think>")
CONTROL = ("[TOOL_CALLS]", "[ARGS]", "[INST]", "[/INST]")


def save_template(folder: Path, template: str) -> Path:
    """The folder, with a tokenizer and this template in it.

    The tokenizer has the markers of Qwen as added words and those of Mistral as special tokens, as theirs have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = save_tokenizer(folder)
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in WORDS])
    tokenizer.add_special_tokens(list(CONTROL))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    return folder
