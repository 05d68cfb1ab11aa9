"""Where a model answers: serve, send, keep, price."""

from lib.endpoints.price import (
    BYTES_PER_TOKEN,
    Rate,
    most_tokens,
    price_of,
    prompt_bytes,
    usd,
)
from lib.endpoints.requests import (
    Call,
    Item,
    Plan,
    admit,
    admitted,
    cache_path,
    chat_calls,
    json_schema_format,
)
from lib.endpoints.runner import STORE, Session, perform, run_blocking
from lib.endpoints.servers import (
    Served,
    answer_identity,
    client,
    identity,
    machine,
    request_options,
    scrub,
    serving,
)
from lib.endpoints.store import (
    appending_records,
    key_of,
    read_records,
    recorded_answers,
    recorded_path,
)

__all__ = [
    "BYTES_PER_TOKEN", "STORE", "Call", "Item", "Plan", "Rate", "Served", "Session", "admit",
    "admitted", "answer_identity", "appending_records", "cache_path", "chat_calls",
    "client", "identity", "json_schema_format", "key_of", "machine", "most_tokens", "perform",
    "price_of", "prompt_bytes", "read_records", "recorded_answers", "recorded_path",
    "request_options", "run_blocking", "scrub", "serving", "usd",
]  # fmt: skip
