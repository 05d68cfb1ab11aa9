"""Where a model answers: serve, send, keep, price."""

from lib.endpoints.attempts import stream
from lib.endpoints.runner import STORE, Session, perform, run_blocking

from lib.endpoints.price import (  # isort: skip
    BYTES_PER_TOKEN, Budget, Rate, context_tokens, most_tokens, price_of, prompt_bytes, usd,
    usd_of_answers,
)  # fmt: skip
from lib.endpoints.requests import (  # isort: skip
    FIELD, Call, Item, Plan, admit, admitted, cache_path, chat_calls, fill, json_schema_format,
    model_objection, one_value,
)  # fmt: skip
from lib.endpoints.servers import (  # isort: skip
    Served, answer_identity, client, identity, machine, request_options, scrub, serving,
)  # fmt: skip
from lib.endpoints.store import (  # isort: skip
    appending_records, key_of, read_records, recorded_answers, recorded_elsewhere, recorded_path,
)  # fmt: skip

__all__ = [
    "BYTES_PER_TOKEN", "FIELD", "STORE", "Budget", "Call", "Item", "Plan", "Rate", "Served",
    "Session", "admit", "admitted", "answer_identity", "appending_records", "cache_path",
    "chat_calls", "client", "context_tokens", "fill", "identity", "json_schema_format", "key_of",
    "machine", "model_objection", "most_tokens", "one_value", "perform", "price_of", "prompt_bytes",
    "read_records", "recorded_answers", "recorded_elsewhere", "recorded_path", "request_options",
    "run_blocking", "scrub", "serving", "stream", "usd", "usd_of_answers",
]  # fmt: skip
