"""Charts and document pages with made-up contents, for the example gallery."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes


class Chart(NamedTuple):
    """A chart: its kind, its title, its labels and its numbers."""

    kind: str
    title: str
    labels: tuple[str, ...]
    numbers: tuple[float, ...]


CHARTS = {
    "bar": Chart("bar", "Bar chart: bicycles sold", ("Mon", "Tue", "Wed", "Thu", "Fri"), (12, 19, 7, 15, 24)),
    "line": Chart("line", "Line chart: temperature in a year", ("Jan", "Apr", "Jul", "Oct", "Dec"), (2, 11, 24, 13, 4)),
    "pie": Chart("pie", "Pie chart: what a family spends", ("Rent", "Food", "Travel", "Other"), (42, 28, 18, 12)),
    "scatter": Chart("scatter", "Scatter plot: height and weight", ("cm", "kg"), (150, 52, 158, 55, 170, 66, 188, 84)),
    "histogram": Chart(
        "hist", "Histogram: ages of visitors", ("years", "people"), (18, 22, 25, 26, 29, 31, 35, 41, 52)
    ),
}

PAGES = {
    "invoice": """Invoice
        Invoice no. 2041 | 3 May

        2 desk lamps | 58.00
        1 office chair | 129.00
        Delivery | 9.50

        Total | 196.50

        Payable within 30 days.""",
    "recipe": """Recipe for pancakes
        250 g flour
        2 eggs
        400 ml milk
        a pinch of salt

        Whisk everything together,
        let it rest for half an hour,
        then fry in a little butter.""",
    "timetable": """Train timetable
        Riverside | 07:12
        Old Mill | 07:25
        Hill Park | 07:41
        Central | 07:58
        Airport | 08:20

        Runs daily except Sunday.""",
    "menu": """Lunch menu
        Tomato soup | 5
        Green salad | 6
        Pasta with mushrooms | 11
        Grilled fish | 14
        Apple pie | 4

        Tea or coffee | 2""",
    "letter": """Letter to a friend
        Dear Ada,

        thank you for the map. We found
        the lake at once and stayed until
        the stars came out.

        Come and see us in autumn!

        Yours, Tom""",
    "poster": """Concert poster
        SUMMER CONCERT

        Saturday, 8 pm
        in the city park

        free entry""",
}
"""Title and lines; a line with a bar is set left and right."""


def draw_chart(name: str) -> PIL.Image.Image:
    """Draw a chart of `CHARTS`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = CHARTS[name]
    figure = Figure(figsize=(4, 3), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    _plot(axes, chart)
    axes.set_title(chart.title.partition(": ")[2].capitalize())
    canvas.draw()
    pixels = canvas.buffer_rgba()
    return PIL.Image.frombuffer("RGBA", canvas.get_width_height(), pixels).convert("RGB")


def _plot(axes: Axes, chart: Chart) -> None:
    if chart.kind == "pie":
        axes.pie(chart.numbers, labels=chart.labels)
    elif chart.kind == "bar":
        axes.bar(chart.labels, chart.numbers, color="#4c72b0")
    elif chart.kind == "line":
        axes.plot(chart.labels, chart.numbers, marker="o", color="#c44e52")
    else:
        axes.set_xlabel(chart.labels[0])
        axes.set_ylabel(chart.labels[1])
        if chart.kind == "scatter":
            axes.scatter(chart.numbers[::2], chart.numbers[1::2], color="#55a868")
        else:
            axes.hist(chart.numbers, bins=7, color="#8172b3", edgecolor="white")


def draw_page(name: str, font: Path) -> PIL.Image.Image:
    """Draw a page of `PAGES`: its title, a rule, its lines."""
    title, *lines = PAGES[name].splitlines()
    width, height, margin = 360, 460, 32
    image = PIL.Image.new("RGB", (width, height), "#fffdf7")
    pen = PIL.ImageDraw.Draw(image)
    body = PIL.ImageFont.truetype(font, 17)
    pen.text((margin, margin), title, font=PIL.ImageFont.truetype(font, 26), fill="#1b2631")
    pen.line((margin, margin + 42, width - margin, margin + 42), fill="#1b2631", width=2)
    for number, line in enumerate(lines):
        left, _, right = line.partition(" | ")
        y = margin + 64 + number * 34
        pen.text((margin, y), left.strip(), font=body, fill="#2c3e50")
        pen.text((width - margin, y), right, font=body, fill="#2c3e50", anchor="ra")
    return image
