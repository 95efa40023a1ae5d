"""The page: Gradio components, and what happens when they are used."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from mllm_embed.errors import MllmEmbedError
from mllm_embed.tasks import TASKS
from mllm_embed_demo import snippets, view
from mllm_embed_demo.examples import EXAMPLES, Example
from mllm_embed_demo.pictures import Picture, to_payload
from mllm_embed_demo.search import Playground, Query, Result, automatic_task

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mllm_embed_demo.index import Index

AUTOMATIC = "automatic"
OWN = "own"
FULL = 0
BROWSED = 24
Update = dict[Any, Any]
"""New values by component; components left out keep what they show, so that an error loses nothing."""


@dataclass(frozen=True)
class Asked:
    """A visitor's last search, to tell how the ranking moved: text and picture, and the rank of every picture."""

    query: Query | None = None
    subject: tuple[str, str | None] = ("", None)
    ranks: dict[str, int] = field(default_factory=dict)


def build_demo(playground: Playground) -> gr.Blocks:
    """Lay out the page for a playground, and wire it."""
    blocks: gr.Blocks = gr.Blocks(title="mllm-embed playground", analytics_enabled=False)
    with blocks:
        _Page(playground).wire(blocks)
    return blocks


class _Page:
    """The components, and the handlers of their events."""

    def __init__(self, playground: Playground) -> None:
        self.playground = playground
        self.folder = Path(tempfile.mkdtemp(prefix="mllm-embed-playground-"))
        with gr.Column(elem_classes="me-top"):
            gr.HTML(view.HEAD, apply_default_css=False)
            self.status = gr.HTML(view.status(["Connecting to the API …"]), apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=4, min_width=300):
                self._lay_out_query()
            with gr.Column(scale=9, min_width=300):
                self.results = gr.HTML(elem_id="results", js_on_load=view.SCRIPT, apply_default_css=False)
                self._lay_out_code()
        self.asked = gr.State(Asked())

    def _lay_out_query(self) -> None:
        self.text = gr.Textbox(
            label="Text", placeholder="Describe what you look for", lines=1, max_lines=6, elem_id="text"
        )
        self.image = gr.Image(
            label="Picture (optional)",
            type="filepath",
            sources=["upload", "clipboard"],
            height=170,
            buttons=[],
            elem_id="image",
        )
        # Gradio would decode an upload itself and show its own words for a broken one; our check names the formats.
        self.image.preprocess = _uploaded_path  # type: ignore[method-assign]
        self.search = gr.Button("Search", variant="primary", elem_id="search")
        self.message = gr.HTML(elem_id="message", js_on_load=view.SCRIPT, apply_default_css=False)
        with gr.Row(elem_classes="me-chips"):
            wanted = [(example, self._picture_of(example)) for example in EXAMPLES]
            self.chips = [
                (gr.Button(example.label, size="sm"), example.text, picture)
                for example, picture in wanted
                if picture is not None or (example.file is None and self._has_examples())
            ]
        choices = [("Automatic: by what you search with", AUTOMATIC), ("My own instruction", OWN)]
        choices += [(f"{task.name}: {task.query}", task.name) for task in TASKS.values()]
        self.task = gr.Dropdown(choices, value=AUTOMATIC, label="Task", filterable=False, elem_id="task")
        self.instruction = gr.Textbox(
            label="Instruction",
            info="What the model is told about your query. Change it, press Enter, and see the ranking move.",
            value=automatic_task(text=True, picture=False).query,
            max_lines=4,
            elem_id="instruction",
        )
        with gr.Row():
            self.dimensions = gr.Dropdown(
                [("full", FULL)], value=FULL, label="Dimensions", min_width=100, filterable=False, elem_id="dimensions"
            )
            self.count = gr.Dropdown([6, 12, 24, 48], value=12, label="Show", min_width=100, filterable=False)
        self.words = gr.HTML(elem_id="words", apply_default_css=False)

    def _lay_out_code(self) -> None:
        with gr.Accordion("Reproduce this search in code", open=True, visible=False, elem_id="code") as self.code:
            self.vector = gr.Markdown()
            with gr.Tab("curl"):
                self.curl = gr.Code(language="shell", label="curl", wrap_lines=True, elem_id="curl")
            with gr.Tab("Python"):
                self.python = gr.Code(language="python", label="Python", wrap_lines=True, elem_id="python")

    def wire(self, blocks: gr.Blocks) -> None:
        """Connect events with handlers."""
        inputs = [self.text, self.image, self.task, self.instruction, self.dimensions, self.count, self.asked]
        outputs = [
            *(self.message, self.results, self.status, self.code, self.vector, self.curl, self.python),
            *(self.instruction, self.dimensions, self.asked),
        ]
        shared: dict[str, Any] = {
            "inputs": inputs,
            "outputs": outputs,
            "show_progress": "minimal",
            "show_progress_on": self.results,
            "trigger_mode": "always_last",
        }
        blocks.load(self.on_load, None, outputs)
        searches = [
            gr.on([self.search.click, self.text.submit, self.image.upload], self.on_search, **shared),
            self.instruction.submit(self.on_instruction, **shared),
        ]
        gr.on([self.dimensions.input, self.count.input], self.on_option, **shared)
        chosen = self.task.input(self.on_task, [self.task, self.instruction], self.instruction, show_progress="hidden")
        searches.append(chosen.then(self.on_option, **shared))
        self.instruction.input(None, None, self.task, js=f"() => '{OWN}'")
        query = [self.text, self.image]
        for button, text, picture in self.chips:
            filled = button.click(lambda t=text, p=picture: (t, self._path_of(p)), None, query, show_progress="hidden")
            searches.append(filled.then(self.on_search, **shared))
        filled = self.results.select(self.on_more_like_this, None, query, show_progress="hidden")
        searches.append(filled.then(self.on_search, **shared))
        for search in searches:
            search.then(self.on_words, self.asked, self.words, show_progress="hidden")

    def on_load(self) -> Iterator[Update]:
        """Show the gallery; while its vectors are made, show how far that is."""
        while self.playground.building and not self.playground.ready:
            done, total = self.playground.embedded
            yield {self.status: view.status([f"Embedding the gallery: {done} of {total} pictures …"])}
            time.sleep(0.5)
        try:
            index = self.playground.index()
        except MllmEmbedError as error:
            yield {
                self.message: _message(error),
                self.status: view.status(["Not connected"]),
                self.results: view.browse(self.playground.pictures, BROWSED),
            }
            return
        yield {
            self.message: "",
            self.status: view.status(_facts(index)),
            self.results: view.browse(index.pictures, BROWSED),
            self.dimensions: _widths(index),
        }

    def on_words(self, asked: Asked) -> str:
        """Show the words of the last query, beside a ranking that did not wait for them."""
        return "" if asked.query is None else view.words(self.playground.words(asked.query))

    def on_task(self, task: str, instruction: str) -> str:
        """Fill in the instruction of a built-in task."""
        return TASKS[task].query if task in TASKS else instruction

    def on_more_like_this(self, event: gr.EventData) -> tuple[str, str | None]:
        """Make the picture of a card the query."""
        key = event._data.get("key") if isinstance(event._data, dict) else None  # noqa: SLF001 - Gradio's only way
        return "", self._path_of(self.playground.picture(str(key)))

    def on_option(  # noqa: PLR0917 - Gradio passes the inputs in order, and the request by its annotation
        self,
        text: str,
        image: str | None,
        task: str,
        instruction: str,
        dimensions: int,
        count: int,
        asked: Asked,
        request: gr.Request,
    ) -> Update:
        """Search again with another option, if there is something to search for."""
        if text.strip() or image:
            return self.on_search(text, image, task, instruction, dimensions, count, asked, request)
        return {self.message: ""}

    def on_instruction(  # noqa: PLR0917 - Gradio passes the inputs in order
        self,
        text: str,
        image: str | None,
        _task: str,
        instruction: str,
        dimensions: int,
        count: int,
        asked: Asked,
        request: gr.Request,
    ) -> Update:
        """Search with the instruction as it stands; the task may not have turned to the visitor's own yet."""
        return self.on_search(text, image, OWN, instruction, dimensions, count, asked, request)

    def on_search(  # noqa: PLR0917 - Gradio passes the inputs in order
        self,
        text: str,
        image: str | None,
        task: str,
        instruction: str,
        dimensions: int,
        count: int,
        asked: Asked,
        request: gr.Request,
    ) -> Update:
        """Search, and show the ranking, or one sentence on why there is none."""
        text = text.strip()
        if task == AUTOMATIC and (text or image):
            instruction = automatic_task(text=bool(text), picture=bool(image)).query
        try:
            picture = to_payload(Path(image).read_bytes()) if image else None
            query = Query(text=text, picture=picture, instruction=instruction, dimensions=dimensions or None)
            result = self.playground.search(query)
        except (MllmEmbedError, OSError) as error:
            return {self.message: _message(error)}
        subject = (text, picture.key if picture else None)
        before = asked.ranks if asked.subject == subject else {}
        ranks = {hit.picture.key: rank for rank, hit in enumerate(result.hits, 1)}
        return {
            self.message: "",
            self.results: view.results(result, count, before),
            self.status: view.status([*_facts(result.index), f"query embedded in {result.milliseconds:.0f} ms"]),
            self.instruction: instruction,
            self.asked: Asked(query, subject, ranks),
            **self._code_update(result, count, _origin(request)),
        }

    def _code_update(self, result: Result, count: int, origin: str) -> Update:
        client = self.playground.client
        numbers = ", ".join(f"{value:.4f}" for value in result.vector[:4])
        return {
            self.code: gr.Accordion(visible=True),
            self.vector: f"`curl` prints the query's vector, **[{numbers}, …]** ({len(result.vector)} numbers); "
            "Python prints the ranking above with its scores.",
            self.curl: snippets.curl(result, client.api_url, origin, key=client.has_key),
            self.python: snippets.python(result, client.api_url, origin, key=client.has_key, shown=count),
        }

    def _has_examples(self) -> bool:
        return any(example.file is not None and self._picture_of(example) is not None for example in EXAMPLES)

    def _picture_of(self, example: Example) -> Picture | None:
        return self.playground.find(example.file) if example.file is not None else None

    def _path_of(self, picture: Picture | None) -> str | None:
        """Copy a picture to where Gradio may serve it from; the gallery's own folder stays closed to browsers."""
        if picture is None:
            return None
        payload = picture.payload()
        path = self.folder / f"{picture.key}{'.jpg' if payload.mime == 'image/jpeg' else '.png'}"
        path.write_bytes(payload.data)
        return str(path)


def _uploaded_path(payload: Any) -> str | None:
    """Return where Gradio put an upload; it has checked that the path lies in its upload folder."""
    return payload.path if payload is not None else None


def _message(error: Exception) -> str:
    text = str(error).removeprefix("input[0]: ").rstrip(".")
    return view.message(text[:1].upper() + text[1:] + ".")


def _facts(index: Index) -> list[str]:
    card = index.card
    facts = [card.name, *([f"backend {card.backend}"] if card.backend else []), f"{index.vectors.shape[1]} dimensions"]
    facts.append(f"{len(index.pictures)} pictures")
    return facts + ([f"{len(index.skipped)} left out, see the terminal"] if index.skipped else [])


def _widths(index: Index) -> gr.Dropdown:
    """Offer the widths that the model card names."""
    full = index.vectors.shape[1]
    narrower = [width for width in index.card.offered if width < full]
    return gr.Dropdown(
        [(f"{full} (full)", FULL), *((str(width), width) for width in narrower)], interactive=bool(narrower)
    )


def _origin(request: gr.Request) -> str:
    """Return the address under which the visitor's browser sees this page."""
    scheme = request.headers.get("x-forwarded-proto", "http")
    return f"{scheme}://{request.headers['host']}"
