"""HTML of the page's own parts: result cards, status line, messages. Whatever comes from outside is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mllm_embed_demo.pictures import Picture
    from mllm_embed_demo.search import Result

HEAD = """
<div class="me-head">
<h1>mllm-embed playground</h1>
<p>Search pictures by a text, by a picture, or by both at once.</p>
</div>
"""
SCRIPT = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-key]');
  if (button) trigger('select', {key: button.dataset.key});
});
watch('value', () => {
  const top = element.getBoundingClientRect().top;
  const news = element.querySelector('.me-rank, .me-message');
  if (news && (top < 0 || top > 0.6 * innerHeight)) element.scrollIntoView({behavior: 'smooth'});
});
"""
"""Tells Python which card's button was pressed, and scrolls to what is new where it would be out of sight."""


def message(text: str) -> str:
    """Return one sentence that screen readers announce."""
    return f'<div class="me-message" role="alert">{escape(text)}</div>'


def status(parts: Sequence[str]) -> str:
    """Return the status line."""
    return (
        '<div class="me-status" role="status">' + "".join(f"<span>{escape(part)}</span>" for part in parts) + "</div>"
    )


def browse(pictures: Sequence[Picture], limit: int) -> str:
    """Return the empty state: what there is to search in."""
    some = pictures[:: -(-len(pictures) // limit)]
    count = f"Some of its {len(pictures)} pictures" if len(some) < len(pictures) else f"Its {len(pictures)} pictures"
    head = f"<h2>The gallery</h2><p>{count}. Type a text, add a picture or press an example to rank them all.</p>"
    return _section(head, [_card(picture) for picture in some])


def results(result: Result, shown: int, before: Mapping[str, int]) -> str:
    """Return the ranked cards.

    Args:
        result: the search.
        shown: how many cards.
        before: rank of each picture (by key) in the search before, where only the instruction or the width differed.
    """
    hits = result.hits[:shown]
    best, worst = result.hits[0].score, result.hits[-1].score
    cards = []
    for rank, hit in enumerate(hits, 1):
        share = (hit.score - worst) / (best - worst) if best > worst else 1.0
        cards.append(_card(hit.picture, rank=rank, score=hit.score, share=share, before=before.get(hit.picture.key)))
    query = result.query
    asked = f"“{query.text}”" if query.text else "your picture"
    if query.text and query.picture is not None:
        asked += " and your picture"
    head = f"<h2>Best {len(hits)} of {len(result.hits)} for {escape(asked)}</h2>"
    head += f'<p>Instruction: {escape(query.instruction)} &nbsp; <a href="#code">Reproduce in code</a></p>'
    return _section(head, cards)


def words(weights: Mapping[str, float]) -> str:
    """Return a bar for each word that the model reads in the query; nothing if there are none.

    Args:
        weights: words, the heaviest first.
    """
    if not weights:
        return ""
    heaviest = max(weights.values())
    rows = "".join(
        f'<li><span class="me-word">{escape(word)}</span>'
        f'<span class="me-bar" aria-hidden="true"><i style="width:{weight / heaviest:.0%}"></i></span>'
        f'<span class="me-number">{weight:.2f}</span></li>'
        for word, weight in weights.items()
    )
    note = "Its language-model head at the query's last token, log(1 + logit); frequent words weigh much."
    return f'<section class="me-words"><h2>What the model reads in it</h2><ol>{rows}</ol><p>{note}</p></section>'


def _section(head: str, cards: Sequence[str]) -> str:
    return f'<section class="me-results"><header>{head}</header><ol class="me-grid">{"".join(cards)}</ol></section>'


def _card(
    picture: Picture, *, rank: int | None = None, score: float = 0.0, share: float = 0.0, before: int | None = None
) -> str:
    title = escape(picture.title)
    ranked = ""
    if rank is not None:
        ranked = (
            f'<div class="me-score"><span class="me-rank">{rank}</span>'
            f'<span class="me-bar" aria-hidden="true"><i style="width:{share:.0%}"></i></span>'
            f'<span class="me-number" title="cosine similarity">{score:.3f}</span>{_move(rank, before)}</div>'
        )
    return (
        f'<li class="me-card"><img src="thumbnails/{picture.key}" alt="{title}" loading="lazy">{ranked}'
        f'<div class="me-title">{title}</div><div class="me-credit">{escape(picture.credit)}</div>'
        f'<button type="button" data-key="{picture.key}" aria-label="Find pictures like {title}">'
        "More like this</button></li>"
    )


def _move(rank: int, before: int | None) -> str:
    """Return how far a picture has moved since the search before."""
    if before is None or before == rank:
        return ""
    up = before > rank
    return (
        f'<span class="me-move {"me-up" if up else "me-down"}" title="was number {before}">'
        f"{'▲' if up else '▼'}{abs(before - rank)}</span>"
    )
