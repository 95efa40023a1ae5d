"""The web application: the page, and the addresses of its pictures."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import gradio as gr
from fastapi import FastAPI, Response

from mllm_embed.errors import InputError
from mllm_embed_demo.app import build_demo

if TYPE_CHECKING:
    from mllm_embed_demo.search import Playground

_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
"""A picture's address is made from its content, so a browser may keep it."""
MAX_UPLOAD = "50mb"


def create_web_app(playground: Playground) -> FastAPI:
    """Return the application; nothing in its page comes from another host."""
    app = FastAPI(title="mllm-embed playground", openapi_url=None)

    @app.get("/pictures/{key}")
    def picture(key: str) -> Response:
        """Return a picture exactly as it is sent to the embeddings API."""
        try:
            payload = playground.payload(key)
        except (InputError, OSError):
            payload = None
        if payload is None:
            return Response(status_code=404)
        return Response(payload.data, media_type=payload.mime, headers=_FOREVER)

    @app.get("/thumbnails/{key}")
    def thumbnail(key: str) -> Response:
        """Return a picture of the gallery, small."""
        try:
            data = playground.thumbnail(key)
        except (InputError, OSError):
            data = None
        return Response(status_code=404) if data is None else Response(data, media_type="image/webp", headers=_FOREVER)

    mounted: FastAPI = gr.mount_gradio_app(
        app,
        build_demo(playground),
        path="/",
        app_kwargs={"openapi_url": None},
        theme=_theme(),
        css_paths=[Path(__file__).parent / "style.css"],
        footer_links=[],
        run_history=False,
        max_file_size=MAX_UPLOAD,
        ssr_mode=False,
        show_error=True,
    )
    return mounted


@cache
def _theme() -> gr.themes.Base:
    """Fonts of the visitor's own system: Gradio's default ones would be fetched from a font service."""
    theme: gr.themes.Base = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Consolas", "monospace"],
    )
    theme.set(  # Gradio's own greys and the button's blue have too little contrast for small print
        body_text_color_subdued="*neutral_500",
        block_info_text_color="*neutral_500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
    )
    return theme
