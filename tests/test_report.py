"""The page that a run leaves behind: results, a picture of each notebook, links that lead
somewhere."""

import base64
import json
import re

from facial_keypoints.files import csv_rows
from research.reporting.report import PHOTOGRAPHS, PUBLISHED, write

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n some picture").decode()


def notebook(path, outputs):
    path.write_text(json.dumps({"cells": [{"cell_type": "code", "outputs": outputs}]}))
    path.with_suffix(".html").write_text("page")
    return path


def test_the_page_links_notebooks_and_shows_results(tmp_path):
    image = {"output_type": "display_data", "data": {"image/png": PNG}}
    runs = {
        notebook(
            tmp_path / "1. Load & see.ipynb", [image, {"output_type": "stream", "text": "x"}]
        ): 12.3,
        notebook(tmp_path / "2. Train.ipynb", []): 70.0,
    }
    row = tmp_path / "row.csv"
    row.write_text(
        "weights,split,labels,nme,nme_own,fr8,auc8,parameters,ms_per_face,training_minutes\n"
        "<b>mine,person,corrected,7.123,nan,20,30,769220,1.5,1\n"
    )
    page = write(tmp_path, runs, {"epochs": 3}, row).read_text()
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="([^"]+)"', page)]
    assert len(links) == 2 and all((tmp_path / link).exists() for link in links)
    assert PNG in page and "ran in 12 s" in page and "epochs=3" in page
    assert (
        "7.12" in page
        and "0.8 M" in page
        and "&lt;b&gt;mine" in page
        and "<b>mine" not in page
        and "nan" not in page
    )
    for shipped in csv_rows(PUBLISHED):
        kept = "no weights" not in shipped["weights"]
        assert (f"<td>{shipped['weights']}</td>" in page) == kept
        assert not kept or f"<td>{float(shipped['nme']):.2f}</td>" in page
    for network in csv_rows(PHOTOGRAPHS):
        assert f"<td>{network['weights']}</td>" in page
        assert f"<td>{float(network['nme_box']):.2f}</td>" in page
    assert "that notebook 2 trained" not in write(tmp_path, runs, {}, None).read_text()
