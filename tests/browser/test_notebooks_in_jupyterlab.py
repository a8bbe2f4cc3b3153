"""All cells of the three notebooks in a real JupyterLab: run, menus used, a photo uploaded, no
error anywhere. Trainings are short: what long ones print is tested without a browser."""

import papermill.iorw
import pytest
from conftest import copy_of_the_repository
from jupyterlab import Notebook, server
from papermill.parameterize import parameterize_notebook

from batch import NOTEBOOKS

SHORT = {NOTEBOOKS[1]: {"epochs": 2}}


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyterlab")
    home = copy_of_the_repository(folder / "clone")
    for name, values in SHORT.items():
        path = str(home / "notebooks" / name)
        content = papermill.iorw.load_notebook_node(path)
        papermill.iorw.write_ipynb(parameterize_notebook(content, values), path)
    with server(home, folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(launch):
    browser = launch()
    yield browser
    browser.close()


@pytest.fixture
def page(browser):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


def images_of(cell):
    """How many pictures a cell shows, in widgets too."""
    assert cell.count() == 1
    return cell.locator(".jp-OutputArea img").count()


def choose(notebook, cell, menu, label):
    """Choose from a menu of a cell, and wait until its picture is drawn anew."""
    select = cell.locator(
        ".widget-dropdown", has=notebook.page.locator(".widget-label", has_text=menu)
    ).locator("select")
    before = cell.locator(".jp-OutputArea img").first.get_attribute("src")
    select.select_option(label=label)
    notebook.page.wait_for_function(
        "([image, before]) => image.getAttribute('src') !== before || !image.isConnected",
        arg=[cell.locator(".jp-OutputArea img").first.element_handle(), before],
        timeout=60_000,
    )
    notebook.page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']")


def test_notebook_1_runs_and_its_menus_work(address, page):
    notebook = Notebook(page, address, NOTEBOOKS[0])
    notebook.run_all(600)
    assert notebook.errors() == []
    cell = notebook.cell_with("pick(look,")
    assert images_of(cell) == 1
    choose(notebook, cell, "person", "Drawn-0-0007")
    choose(notebook, cell, "numbered", "True")
    assert notebook.errors() == [] and images_of(cell) == 1


def test_notebook_2_trains_with_progress(address, page):
    notebook = Notebook(page, address, NOTEBOOKS[1])
    notebook.run_all(600)
    assert notebook.errors() == []
    trained = notebook.cell_with("launch(processes")
    assert "epoch   2/2  training loss" in trained.locator(".jp-OutputArea").inner_text().replace(
        "\xa0", " "
    )


def test_notebook_3_runs_menus_and_uploads(address, page, hopper, tmp_path):
    notebook = Notebook(page, address, NOTEBOOKS[2])
    notebook.run_all(300)
    assert notebook.errors() == []
    cell = notebook.cell_with("pick(show_faces,")
    assert images_of(cell) == 1
    choose(notebook, cell, "photo", "synthetic scene")
    choose(notebook, cell, "network", "models8")
    choose(notebook, cell, "finder", "haar_alt2")
    upload = notebook.cell_with("upload(lambda")
    (tmp_path / "notes.png").write_text("no picture")
    with page.expect_file_chooser() as chooser:
        upload.get_by_role("button", name="Upload").click()
    chooser.value.set_files([hopper[0], tmp_path / "notes.png"])
    upload.locator(".jp-OutputArea img").first.wait_for(timeout=60_000)
    upload.get_by_text("notes.png: not a picture in a known format").wait_for(timeout=60_000)
    live = notebook.cell_with("live_camera()").frame_locator("iframe")
    live.get_by_text("Ready.").wait_for(timeout=60_000)
    assert notebook.errors() == []
