"""Changes to the site's pages, called by mkdocs."""

from __future__ import annotations

from typing import Any

REMOTE_SHIM = "https://unpkg.com/iframe-worker/shim"


def on_post_page(output: str, *, page: Any, config: Any) -> str:
    """Take the script that makes search work on file:// pages from the site itself, not from a remote host."""
    return output.replace(REMOTE_SHIM, "../" * page.url.count("/") + "assets/iframe-worker.js")


def on_post_template(output_content: str, *, template_name: str, config: Any) -> str:
    """Do the same for pages that have no source, such as 404.html."""
    return output_content.replace(REMOTE_SHIM, "assets/iframe-worker.js")
