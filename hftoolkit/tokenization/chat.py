"""A chat template for tokenizers trained here.

The form is ChatML's, with the tokenizer's own end token where ChatML has <|im_end|>: whatever stops at the end of a
text also stops at the end of an answer, without being told. `{% generation %}` marks what the assistant writes, its
end token included, so that training on answers only (TRL's `assistant_only_loss`) also teaches when to stop.
"""

TURN_START = "<|im_start|>"

CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message['role'] + '\\n' -}}
    {%- if message['role'] == 'assistant' -%}
        {%- generation -%}{{- message['content'] + eos_token -}}{%- endgeneration -%}
    {%- else -%}
        {{- message['content'] + eos_token -}}
    {%- endif -%}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""
