"""A page in a real browser, opened from disk."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def open_page(chromium: Any, out: Path, **options: Any) -> Any:
    """The page, ready; whatever a console or an error says is in `page.said`."""
    page = chromium.new_context(**({"viewport": {"width": 1280, "height": 900}} | options)).new_page()
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda request: page.said.append(request.url) if request.url.startswith("http") else None)
    page.goto(f"file://{out}/report/index.html")
    page.wait_for_selector("html[data-ready]", state="attached")
    return page
