"""Which fields of a request are not honoured: those that change nothing, and the rest, which is refused with its name.

Ignoring a field that changes the meaning would be a wrong answer without an error; refusing one that changes nothing
would turn clients away that send their defaults. The fields are those of OpenAI's reference and of vLLM 0.33.
"""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

import pydantic

from serving.api import refusals

Neutral = Mapping[str, tuple[Any, ...]]
"""Fields that are not honoured, and the values (beside null) under which that changes nothing."""

INERT = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prediction", "request_id", "session_id",
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_salt",
    }
)  # fmt: skip
"""Fields that change nothing in the answer."""

NEUTRAL: Neutral = {
    # vLLM's own
    "add_special_tokens": (),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_regex": (),
    "guided_decoding_backend": (),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "priority": (0,),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "truncate_prompt_tokens": (),
    "truncation_side": (),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
}
CHAT_NEUTRAL: Neutral = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "audio": (),
    "moderation": (),
    "reasoning_effort": (),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM's own
    "add_generation_prompt": (True,),
    "add_special_tokens": (False,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "echo": (False,),
    "include_reasoning": (True,),
    "media_io_kwargs": ({},),
    "mm_processor_kwargs": ({},),
    "thinking_token_budget": (),
}
TOKENIZE_NEUTRAL: Neutral = {
    "add_generation_prompt": (True,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "mm_processor_kwargs": ({},),
}
COMPLETION_NEUTRAL: Neutral = {"best_of": (1,), "suffix": ("",), "add_special_tokens": (True,)}
FORM_NEUTRAL: Neutral = {
    "grammar": (),
    "structural_tag": (),
    "disable_any_whitespace": (False,),
    "disable_additional_properties": (False,),
    "whitespace_pattern": (),
}
STREAM_NEUTRAL: Neutral = {"include_obfuscation": (False,), "continuous_usage_stats": (False,)}

TURN_INERT = frozenset({"name", "annotations", "reasoning", "reasoning_content"})
"""What templates leave out, and answers of other servers have: clients send their messages back."""

TURN_NEUTRAL: Neutral = {"function_call": (), "audio": (), "refusal": ()}


def refuse_unheard(given: pydantic.BaseModel, inert: Collection[str], neutral: Neutral, *, within: str = "") -> None:
    """Refuse the first field that is neither honoured, inert nor neutral."""
    for field, value in (given.model_extra or {}).items():
        if value is None or field in inert or any(_same(value, other) for other in neutral.get(field, ())):
            continue
        if field in neutral:
            takes = [refusals.shown(other) for other in neutral[field]]
            remedy = f"it is not supported yet; leave it out{' or send ' if takes else ''}{' or '.join(takes)}"
        else:
            close = difflib.get_close_matches(field, [*type(given).model_fields, *inert, *neutral], n=1)
            remedy = f"this API has no such field; {f'is it {close[0]}?' if close else 'leave it out'}"
        raise refusals.of_field(f"{within}{field}", value, remedy)


def _same(value: object, other: object) -> bool:
    """Equal, as JSON sees it: true is not 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
