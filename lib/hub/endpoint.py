"""Which host is asked, whether it may be asked, and its refusals in our own words."""

from __future__ import annotations

import os
import re

from huggingface_hub import constants

__all__ = ["Failed", "Unreachable", "address", "host", "is_hub", "offline", "refusal"]

REFUSED = "access refused: accept the terms on the model's page or ask its owner, and set HF_TOKEN"
MISSING = "not found on the Hub, or private: check the name, and HF_TOKEN if it is yours"
BUSY = "too many requests: wait five minutes and run the step again"
REFUSALS = {401: MISSING, 403: REFUSED, 404: MISSING, 410: MISSING, 429: BUSY}
CODES = {  # the Hub's own, which say more
    "GatedRepo": REFUSED,
    "RevisionNotFound": "the repository has no commit like this: check the revision",
    "EntryNotFound": "the repository has no such file at this revision: check the file name",
}


class Failed(Exception):
    """A request had no answer; its text is a sentence for people, `status` 0 if nothing came."""

    def __init__(self, text: str, status: int = 0, code: str | None = None) -> None:
        super().__init__(text)
        self.status, self.code = status, code


class Unreachable(Failed):
    """There is no connection to the host at all."""


def refusal(status: int, code: str | None = None) -> str:
    """What an error status means; the error's own text may quote headers, and the token."""
    text = REFUSALS.get(status, f"the Hub answered {status}: run the step again later")
    return CODES.get(code or "", text)


def offline() -> str:
    """That HF_HUB_OFFLINE is set, also after huggingface_hub had been imported; else empty."""
    late = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    return "HF_HUB_OFFLINE is set" if constants.is_offline_mode() or late else ""


def is_hub() -> bool:
    """Whether the endpoint is Hugging Face itself and no mirror: nobody else gets the token."""
    return bool(re.fullmatch(r"https://(([\w-]+\.)*huggingface\.co|hf\.co)", constants.ENDPOINT))


def host() -> str:
    """The endpoint's host, for messages."""
    return address(constants.ENDPOINT).partition("/")[0]


def address(url: str) -> str:
    """A URL without its scheme and without a user name and password."""
    return re.sub(r"^(\w*://)?(.*@)?", "", url)
