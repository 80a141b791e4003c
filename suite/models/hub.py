"""Whether the hub of models can be reached, found out once and quickly."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants as hub_constants


@contextmanager
def no_waiting_for_an_unreachable_hub() -> Iterator[None]:
    """Without a network the hub client retries for a minute; offline mode answers from its cache at once."""
    before = hub_constants.HF_HUB_OFFLINE
    try:
        request = urllib.request.Request(hub_constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.URLError as error:
        # An HTTP status or a certificate that only the hub client trusts is an answer: the hub is there.
        unreachable = isinstance(error.reason, socket.gaierror | ConnectionError | TimeoutError)
        hub_constants.HF_HUB_OFFLINE = before or unreachable
    except (OSError, ValueError):
        hub_constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        hub_constants.HF_HUB_OFFLINE = before
