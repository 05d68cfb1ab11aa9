"""What endpoints send back, in the shapes that they have."""

from __future__ import annotations

from typing import Any

import pytest

from lib import replies
from lib.replies import ReplyError, completion, finish_of, usage_of, words_of


def reply(**changes: Any) -> dict[str, Any]:
    choice = {"message": {"role": "assistant", "content": "positive"}, "finish_reason": "stop"}
    choice |= {k: changes.pop(k) for k in ("message", "finish_reason") if k in changes}
    return {"model": "m", "choices": [choice]} | changes


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("stop STOP eos <|eos|> eos_token end_turn EndTurn stop_sequence stopSequence", "stop"),
        ("COMPLETE tool_calls TOOL_CALL FINISH_REASON_STOP end-of-text done null", "stop"),
        ("length MAX_TOKENS max-tokens maxTokens length_limit token_limit", "length"),
        ("model_context_window_exceeded model_length maximum_tokens ERROR_LIMIT", "length"),
        ("content_filter SAFETY sensitive contentFiltered refusal RECITATION", "content_filter"),
        ("guardrail_intervened prohibited_content ERROR_TOXIC blocklist", "content_filter"),
    ],
)
def test_words_for_an_end(words: str, meaning: str) -> None:
    assert {finish_of({"finish_reason": word}) for word in words.split()} == {meaning}


@pytest.mark.parametrize("reason", [None, "", {"type": None}])
def test_no_reason_is_none(reason: Any) -> None:
    assert finish_of({"finish_reason": reason}) is None and finish_of({}) is None


def test_sglang_sends_an_object() -> None:
    assert finish_of({"finish_reason": {"type": "length", "length": 16}}) == "length"


@pytest.mark.parametrize(
    ("word", "status"),
    [
        *[(word, 500) for word in replies.FINISH["failed"].split()],
        *[("Network-Error", 500), ("FINISH_REASON_OTHER", 422), ("moon", 422), ("完", 422)],
        *[(7, 422), (True, 422), (["stop"], 422), ("stop " * 9, 422)],
    ],
)
def test_a_failure_and_an_unknown_word_fail_with_text_beside_them(word: Any, status: int) -> None:
    with pytest.raises(ReplyError, match="finish_reason") as problem:
        completion(reply(finish_reason=word), {})
    assert problem.value.status == status and problem.value.usage


def test_no_word_means_two_things() -> None:
    words = " ".join(replies.FINISH.values()).split()
    assert len({word.replace("_", "") for word in words}) == len(words)


def test_a_filtered_choice_without_a_message_is_refused_and_another_is_none() -> None:
    cut = {"choices": [{"finish_reason": "content_filter"}]}
    assert completion(cut, {})["finish_reason"] == "content_filter"
    with pytest.raises(LookupError):
        completion({"choices": [{"finish_reason": "stop"}]}, {})


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"error": "model runner stopped"}, 500, "model runner stopped"),
        ({"error": {"message": "slow", "code": 429}}, 429, "slow"),
        ({"error": {"message": "busy", "code": "529"}, "choices": None}, 529, "busy"),
        ({"error": {"code": 502}}, 502, "502"),
        ({"code": "Throttling.RateQuota", "message": "Requests limit"}, 429, "Requests limit"),
        ([{"error": {"code": 503, "message": "overloaded"}}], 503, "overloaded"),
        ({"object": "error", "message": "NCCL died", "code": 50002}, 500, "NCCL died"),
        ({"detail": [{"loc": ["body"], "msg": "too long"}]}, 500, "too long"),
        ({"base_resp": {"status_msg": "out"}, "choices": []}, 500, "out"),
        ({"error": {"message": "Invalid API key"}}, 401, "Invalid API key"),
        ({"choices": None}, 500, "no choices"),
        ({"choices": []}, 500, "no choices"),
        ({"choices": [{"error": {"message": "up", "code": 502}, "message": {}}]}, 502, "up"),
    ],
)
def test_an_error_in_a_200(body: Any, status: int, words: str) -> None:
    with pytest.raises(ReplyError, match=words) as problem:
        completion(body, {})
    assert problem.value.status == status


@pytest.mark.parametrize("error", [None, {}, "", [], {"message": "", "code": 0}])
def test_an_error_that_says_nothing_beside_an_answer_is_none(error: Any) -> None:
    assert completion(reply(error=error), {})["output"] == "positive"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("<html><style>b{}</style><h1>502 Bad&nbsp;Gateway</h1></html>", "502 Bad Gateway"),
        ({"detail": "Not \x1b[31mred\x1b[0m \u202eevil"}, "Not red evil"),
        ({"errors": [{"message": "one"}, {"message": "two"}]}, "one; two"),
        ("a < b and c > d", "a < b and c > d"),
        ({"x": 1}, ""),
        (7, ""),
    ],
)  # fmt: skip
def test_words(error: Any, words: str) -> None:
    assert words_of(error) == words


def test_deep_words_are_none() -> None:
    deep: Any = "down"
    for _ in range(900):
        deep = {"error": [deep]}
    assert words_of(deep) == ""


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ((32, 9, 135), (32, 103)),  # reasoning billed on top
        ((32, 103, 135), (32, 103)),
        ((20, 5, 85), (20, 65)),
        ((20, 5, 12), (20, 5)),
        ((12.0, 3.0, None), (12, 3)),
        ((None, None, 15), (None, None)),
        ((12, None, 15), (12, None)),
        ((0, 0, 0), (None, None)),  # a text of no tokens is of an unknown number
        ((12, 0, 12), (12, None)),
        ((12, 0, 15), (12, 3)),
        ((-1, -1, -1), (None, None)),
        ((True, False, None), (None, None)),
        (("12", [3], {}), (None, None)),
        ((float("nan"), 1e300, 2**70), (None, None)),
    ],
)
def test_usage(usage: tuple[Any, ...], tokens: tuple[Any, ...]) -> None:
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    told = completion(reply(usage=dict(zip(names, usage, strict=True))), {})
    assert (told["prompt_tokens"], told["completion_tokens"]) == tokens
    assert told["output"] == "positive"


@pytest.mark.parametrize("usage", [None, {}, [], "many", 7, {"tokens": {"prompt": 1}}])
def test_usage_that_tells_nothing(usage: Any) -> None:
    assert set(usage_of(usage).values()) == {None}


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 8}}, 8),  # OpenAI, vLLM, SGLang
        ({"cached_tokens": 8}, 8),  # Moonshot, Together
        ({"prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 4}, 8),  # DeepSeek
        ({"cache_read_input_tokens": 8}, 8),  # Anthropic, by a gateway
        ({"num_cached_tokens": 8}, 8),  # Mistral
        ({"prompt_tokens_details": None, "cached_tokens": 8.0}, 8),
        ({"prompt_tokens_details": {"cached_tokens": 0}, "cached_tokens": 8}, 0),
        *[({"prompt_tokens_details": {"cached_tokens": n}}, None) for n in (None, -1, "8", True)],
        ({"prompt_tokens_details": [], "prompt_cache_hit_tokens": {}}, None),
        ({}, None),
    ],
)
def test_tokens_from_a_cache(usage: Any, cached: int | None) -> None:
    told = {"prompt_tokens": 12, "completion_tokens": 3}
    assert usage_of(told | usage) == told | {"cached_tokens": cached}
    assert completion(reply(usage=told | usage), {})["cached_tokens"] == cached


def test_more_from_a_cache_than_was_read_is_no_count_of_what_was_read() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "cache_read_input_tokens": 13}
    assert usage_of(usage)["prompt_tokens"] is None
    assert usage_of(usage | {"prompt_tokens": 13})["prompt_tokens"] == 13


def test_no_text_may_be_of_no_tokens() -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 0}
    refusal = reply(message={"content": None}, finish_reason="content_filter", usage=usage)
    assert completion(refusal, {})["completion_tokens"] == 0


def test_text_in_reasoning_content_alone_says_so() -> None:
    thoughts = {"content": None, "reasoning_content": "positive, I think"}
    with pytest.raises(ReplyError, match="only reasoning_content"):
        completion(reply(message=thoughts), {})
    assert completion(reply(message=thoughts, finish_reason="length"), {})["output"] == ""


def test_who_answered_is_a_fact() -> None:
    facts = completion(reply(model="m-\u202e2", system_fingerprint="fp"), {"x-provider": "acme"})
    assert [facts[name] for name in replies.SERVED] == ["m- 2", "fp", "acme"]


@pytest.mark.parametrize(
    ("beside", "meaning"),
    [
        ({"stop_reason": "max_tokens"}, "length"),
        ({"native_finish_reason": "MAX_TOKENS"}, "length"),
        ({"finish_details": {"type": "max_tokens"}}, "length"),
        ({"native_finish_reason": "SAFETY"}, "content_filter"),
        ({"stop_reason": "refusal"}, "content_filter"),
        *[({"stop_reason": stop}, "stop") for stop in (128009, "\n", "###", None, "</s>", [], {})],
        ({"native_finish_reason": "moon"}, "stop"),
        ({"finish_details": {"type": "stop", "stop_tokens": [1]}}, "stop"),
    ],
)
def test_a_reason_beside_a_stop_says_more(beside: dict[str, Any], meaning: str) -> None:
    assert finish_of({"finish_reason": "stop"} | beside) == meaning
    assert finish_of({"finish_reason": "length"} | beside) == "length"


@pytest.mark.parametrize("name", replies.REASONS_BESIDE)
def test_an_abort_beside_a_stop_fails(name: str) -> None:
    for finish in ("stop", "length", None):
        with pytest.raises(ReplyError, match="'abort'"):
            finish_of({"finish_reason": finish, name: {"type": "abort"}})


def test_further_words_for_an_end() -> None:
    stops = "</s> stop_str <|eot_id|> <|return|> <｜end▁of▁sentence｜> [EOS] <end_of_turn>"
    assert {finish_of({"finish_reason": word}) for word in stops.split()} == {"stop"}
    cuts = "context_limit output_limit max_output MAX_OUTPUT"
    assert {finish_of({"finish_reason": word}) for word in cuts.split()} == {"length"}


@pytest.mark.parametrize(
    ("beside", "status", "words"),
    [
        ({"error": True}, 500, "(?i)true"),
        ({"error": 503}, 500, "503"),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, 429, "rate limit"),
        ({"base_resp": {"status_code": 1013, "status_msg": ""}}, 500, "1013"),
        ({"error": {"code": "0", "message": "out of funds"}}, 500, "out of funds"),
        ({"error": {"code": "E17"}}, 500, "E17"),
    ],
)
def test_an_error_beside_an_answer(beside: dict[str, Any], status: int, words: str) -> None:
    with pytest.raises(ReplyError, match=words) as problem:
        completion(reply(**beside), {})
    assert problem.value.status == status


@pytest.mark.parametrize(
    "beside",
    [
        {"base_resp": {"status_code": 0, "status_msg": "success"}},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        *[{"error": e} for e in ({"code": "0"}, {"code": 0, "message": "OK"}, False, 0, [], "0")],
    ],
)
def test_a_success_beside_an_answer_is_no_error(beside: dict[str, Any]) -> None:
    assert completion(reply(**beside), {})["output"] == "positive"


@pytest.mark.parametrize(
    "message",
    [
        {"content": "", "reasoning_details": [{"type": "reasoning.text", "text": "positive"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "positive"}]}]},
        {"content": [{"type": "reasoning", "text": "positive"}, {"type": "text", "text": " "}]},
        {"content": None, "thinking": "positive"},
    ],
)
def test_thoughts_alone_are_no_answer(message: dict[str, Any]) -> None:
    with pytest.raises(ReplyError, match="only reasoning_content"):
        completion(reply(message=message), {})
    answered = message | {"content": [{"type": "text", "text": "negative"}]}
    assert completion(reply(message=answered), {})["output"] == "negative"


def test_a_refusal_may_be_a_part() -> None:
    parts = [{"type": "refusal", "refusal": "I cannot"}, "odd", None]
    facts = completion(reply(message={"content": parts[:1]}), {})
    assert (facts["finish_reason"], facts["output"]) == ("refusal", "")
    with pytest.raises(TypeError):
        completion(reply(message={"content": parts}), {})


@pytest.mark.parametrize(
    ("usage", "written"),
    [
        ({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 60}}, 65),
        ({"completion_tokens": 5, "reasoning_tokens": 60}, 65),
        ({"completion_tokens": 5, "total_tokens": 75, "reasoning_tokens": 60}, 65),
        ({"completion_tokens": 65, "completion_tokens_details": {"reasoning_tokens": 60}}, 65),
        ({"completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": "many"}}, 5),
        ({"completion_tokens": 5, "completion_tokens_details": None}, 5),
        ({"completion_tokens_details": {"reasoning_tokens": 60}}, None),
    ],
)
def test_more_reasoning_than_completion_is_billed_on_top(usage: Any, written: int | None) -> None:
    assert usage_of({"prompt_tokens": 10} | usage)["completion_tokens"] == written
