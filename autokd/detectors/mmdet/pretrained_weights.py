"""Weights that a config names (``init_cfg``, ``pretrained``, ``teacher_ckpt``), read without running code in them.

MMDetection reads them itself while it builds and initializes a model: from files, and from addresses. mmengine falls
back to an unpickler that runs what a file asks for if the safe one refuses it. Within ``inert_weights`` whatever calls
torch's functions gets AutoKD's unpickler, and downloads come from the zoo's own hosts alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import torch

from autokd.detectors import safe_unpickler

ZOO_HOSTS = (
    "mmassets.onedl.ai",
    "download.openmmlab.com",
    "download.pytorch.org",
    "github.com/SwinTransformer/storage",
    "github.com/whai362/PVT",
)
"""Hosts, and folders of a host, of the weights that the configs of MMDetection's zoo and mmengine's lists name."""

_patching = threading.RLock()


@contextmanager
def inert_weights() -> Iterator[None]:
    """Read every checkpoint as data, and download from ``ZOO_HOSTS`` alone, while the context lasts.

    The functions of torch are replaced, since mmdet reads weights at several places of mmengine's and of its own.
    """
    with _patching:
        load, download = torch.load, torch.hub.download_url_to_file
        urls = _modules_that_load_urls()
        before = [(module, module.load_url) for module in urls]
        torch.load = _inert(load)
        torch.hub.download_url_to_file = _guarded(download)
        for module, load_url in before:
            module.load_url = _guarded(load_url)
        try:
            yield
        finally:
            torch.load, torch.hub.download_url_to_file = load, download
            for module, load_url in before:
                module.load_url = load_url


def is_zoo_address(url: str) -> bool:
    """Return whether an address is below one of ``ZOO_HOSTS``.

    Args:
        url: address of a file of weights.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or port is not None or "@" in parts.netloc or ".." in parts.path:
        return False
    place = f"{(parts.hostname or '').lower()}{parts.path}"
    return any(place.startswith(f"{host}/") for host in ZOO_HOSTS)


def _modules_that_load_urls() -> list[Any]:
    import mmengine.runner.checkpoint
    import mmengine.utils.dl_utils

    return [mmengine.runner.checkpoint, mmengine.utils.dl_utils]


def _inert(load: Callable[..., Any]) -> Callable[..., Any]:
    def read(file: Any, map_location: Any = None, *_: Any, **__: Any) -> Any:
        return load(file, map_location=map_location, weights_only=False, pickle_module=safe_unpickler)

    return read


def _guarded(fetch: Callable[..., Any]) -> Callable[..., Any]:
    def fetch_from_zoo(url: str, *arguments: Any, **settings: Any) -> Any:
        if not is_zoo_address(url):
            raise OSError(
                f"{url!r} is not on a host of MMDetection's zoo ({', '.join(ZOO_HOSTS)}), from which alone weights are "
                "downloaded. Download the file yourself, and name its path"
            )
        return fetch(url, *arguments, **settings)

    return fetch_from_zoo
