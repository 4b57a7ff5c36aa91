"""Is the Hub there? Asked once, in a second, instead of half a minute of retries per call.

Without a network and without ``HF_HUB_OFFLINE``, each Hub call retries for 24 to 48 seconds before it fails
(measured: transformers 24 s, timm 48 s). So the first Hub id of a process makes one connection attempt; where
it fails, the process goes offline: cached files still load, and what is not cached fails at once.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

PROBE_SECONDS = 1.0


def hub_is_offline() -> bool:
    """Whether this process works without the Hub: probed on the first call, and if so set for all that follows."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return True
    if _reachable(constants.ENDPOINT):
        return False
    go_offline()
    return True


def go_offline() -> None:
    """Set offline mode for this process and its children, in every library that has read it already."""
    from huggingface_hub import constants

    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_EVALUATE_OFFLINE"] = "1"
    constants.HF_HUB_OFFLINE = True  # transformers and timm ask huggingface_hub
    datasets: Any = sys.modules.get("datasets.config")  # keeps a copy of its own
    if datasets is not None:
        datasets.HF_HUB_OFFLINE = datasets.HF_DATASETS_OFFLINE = True
    evaluate: Any = sys.modules.get("evaluate.config")
    if evaluate is not None:
        evaluate.HF_EVALUATE_OFFLINE = True


@cache
def _reachable(endpoint: str) -> bool:
    """One connection attempt within ``PROBE_SECONDS``, name look-up included (which has no timeout of its own)."""
    done: list[bool] = []
    probe = threading.Thread(target=lambda: done.append(_connects(endpoint)), daemon=True)
    probe.start()
    probe.join(PROBE_SECONDS)
    return done == [True]


def _connects(endpoint: str) -> bool:
    """Whether a connection opens, through the proxy that the environment names if there is one."""
    import base64
    import http.client

    target = urlsplit(endpoint)
    port = target.port or (443 if target.scheme == "https" else 80)
    host = target.hostname or ""
    proxy = urlsplit(getproxies().get(target.scheme, ""))
    try:
        if proxy.hostname and not proxy_bypass(host):
            connection = http.client.HTTPConnection(proxy.hostname, proxy.port or 80, timeout=PROBE_SECONDS)
            user = unquote(f"{proxy.username}:{proxy.password or ''}") if proxy.username else ""
            secret = base64.b64encode(user.encode()).decode()
            connection.set_tunnel(host, port, {"Proxy-Authorization": f"Basic {secret}"} if user else {})
        else:
            connection = http.client.HTTPConnection(host, port, timeout=PROBE_SECONDS)
        connection.connect()  # TCP, and the proxy's CONNECT; no TLS, nothing is sent to the Hub
        connection.close()
    except (OSError, http.client.HTTPException):
        return False
    return True
