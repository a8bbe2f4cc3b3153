"""The HTML page of a run of the notebooks."""

import datetime
import json
from pathlib import Path

from facial_keypoints.paths import PHOTOGRAPHS, PUBLISHED
from facial_keypoints.files import atomic_write, csv_rows

COLUMNS = {
    "weights": "weights",
    "split": "split",
    "labels": "labels",
    "nme": "NME %",
    "nme_own": "self-predicted crops",
    "fr8": "FR@8 %",
    "auc8": "AUC@8",
    "parameters": "parameters",
    "ms_per_face": "ms per face",
    "training_minutes": "training min",
}
PHOTOGRAPH_HEADS = {
    "weights": "network",
    "nme_box": "NME %",
    "frontal": "frontal",
    "half_profile": "half profile",
    "profile": "profile",
    "auc7": "AUC@7 %",
    "found": "found %",
    "parameters": "parameters",
}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2rem } a { color: #0072b2 }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: 1rem }
.card { border: 1px solid #ddd; border-radius: 6px; padding: 1rem; text-decoration: none;
  color: inherit }
.card:hover { border-color: #0072b2 } .card img { width: 100%; height: 11rem; object-fit: contain }
.wide { overflow-x: auto }
.card b { color: #0072b2 } table { border-collapse: collapse; width: 100%; font-size: .9rem }
td, th { padding: .25rem .6rem; border-bottom: 1px solid #e5e5e5; text-align: right }
td:first-child, th:first-child { text-align: left } small { color: #666 }
"""


def pictures(notebook: Path) -> list[str]:
    """The PNG outputs of an executed notebook, base64."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    return [
        data if isinstance(data := output["data"]["image/png"], str) else "".join(data)
        for cell in cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Facial keypoint detection</title><style>{{ style }}</style>
{% macro table(rows, columns) %}<div class="wide"><table>
<tr>{% for label in columns.values() %}<th>{{ label }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for name in columns %}<td>{{ shown(name, row.get(name, "")) }}</td>
{%- endfor %}</tr>
{% endfor %}</table></div>{% endmacro %}
<h1>Facial keypoint detection</h1>
<p>The three notebooks as they ran on {{ time.strftime("%d %B %Y, %H:%M") }}, with
{{ parameters }}.</p>
<div class="cards">
{% for card in cards %}<a class="card" href="{{ card.page }}">
{%- if card.picture %}<img alt="" src="data:image/png;base64,{{ card.picture }}">{% endif -%}
<b>{{ card.title }}</b><br><small>ran in {{ card.seconds }} s</small></a>
{% endfor %}</div>
{% if own %}<h2>The network that notebook 2 trained</h2>{{ table(own, columns) }}{% endif %}
<h2>The weights that come with the repository</h2>
<p>On photographs that people labeled, the test part of MERL-RAV; NME in % of the size of the face's
box. dlib and MediaPipe for comparison.</p>
{{ table(photographs, photograph_columns) }}
<p>On the test frames of the named split of the official data set; NME in % of the distance between
the outer eye corners.</p>
{{ table(frames, columns) }}
</html>
"""


def shown(name: str, value: str) -> str:
    """The text of a table cell: a number is rounded."""
    try:
        number = float(value)
    except ValueError:
        return value
    if number != number:  # not measured
        return ""
    if name == "parameters":
        return f"{number / 1e6:.1f} M"
    return f"{number:.2f}" if name.startswith("nme") else f"{number:.1f}"


def write(
    out: Path, seconds: dict[Path, float], parameters: dict, row_path: str | Path | None = None
) -> Path:
    """Write OUT/index.html for executed notebooks {path: seconds}, whose HTML pages are next to
    them. Returns its path.

    row_path: the CSV file with the results of notebook 2.
    """
    import jinja2

    cards = []
    for notebook, spent in seconds.items():
        images = pictures(notebook)
        cards.append(
            {
                "page": notebook.with_suffix(".html").name,
                "title": notebook.stem,
                "seconds": f"{spent:.0f}",
                "picture": max(images, key=len, default=""),
            }
        )  # faces, not curves
    given = ", ".join(f"{name}={value}" for name, value in parameters.items()) or "defaults"
    text = (
        jinja2.Environment(autoescape=True)
        .from_string(PAGE)
        .render(
            style=STYLE,
            columns=COLUMNS,
            shown=shown,
            time=datetime.datetime.now(),
            parameters=given,
            cards=cards,
            own=csv_rows(row_path, optional=True) if row_path else [],
            frames=[row for row in csv_rows(PUBLISHED) if "(no weights)" not in row["weights"]],
            photographs=[row for row in csv_rows(PHOTOGRAPHS) if row["part"] == "test"],
            photograph_columns=PHOTOGRAPH_HEADS,
        )
    )
    atomic_write(out / "index.html", text)
    return out / "index.html"
