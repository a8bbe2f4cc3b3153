"""A real JupyterLab in a real browser: starts the server, opens a notebook, runs all cells, reads
what is on the page."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time

# all cells are in the page, not only the visible
SETTINGS = {"windowingMode": "none", "autoStartDefaultKernel": True}


def find_browser():
    """The path of an installed Chromium or Chrome, or None."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)


@contextlib.contextmanager
def server(root, scratch):
    """A JupyterLab that serves the folder `root` on loopback -> its address. Its own settings lie
    in `scratch`."""
    settings = scratch / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(SETTINGS))
    environment = {**os.environ, "PYTHONPATH": str(root),
                   "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"),
                   "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
                   "JUPYTER_CONFIG_DIR": str(scratch / "config"),
                   "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
                   "IPYTHONDIR": str(scratch / "ipython")}
    words = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
             "--ServerApp.ip=127.0.0.1",
             "--ServerApp.port=0", "--IdentityProvider.token=",
             "--ServerApp.disable_check_xsrf=True",
             f"--ServerApp.root_dir={root}", "--LabApp.news_url=",
             "--LabApp.check_for_updates_class="
             "jupyterlab.NeverCheckForUpdate"]
    process = subprocess.Popen(words, cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        address, lines = None, []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"(http://127\.0\.0\.1:\d+)/", line):
                address = found[1]
                break
        if address is None:
            raise RuntimeError("JupyterLab did not start: " + "".join(lines[-20:]))
        # its pipe must not fill up
        threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
        yield address
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()


class Notebook:
    """A notebook that is open in the browser."""

    def __init__(self, page, address, name):
        self.page = page
        page.goto(
            f"{address}/lab/tree/notebooks/{name.replace(' ', '%20').replace(',', '%2C')}?reset"
        )
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status='idle']",
                               timeout=60_000)

    @property
    def code_cells(self):
        return self.page.locator(".jp-Notebook .jp-CodeCell")

    def run_all(self, seconds):
        """Choose Run > Run All Cells and wait until the last cell has run, or one has failed ->
        seconds it took."""
        self.menu("Edit", "Clear Outputs of All Cells")  # and the committed execution counts
        begun = time.perf_counter()
        self.start()
        self.page.wait_for_function(
            """() => {
                const elements = document.querySelectorAll('.jp-CodeCell .jp-InputPrompt');
                const prompts = [...elements].map(e => e.textContent);
                return prompts.length > 5 && (prompts.every(p => /\\[\\d+\\]/.test(p))
                    || document.querySelector('[data-mime-type="application/vnd.jupyter.error"]'));
            }""",
            timeout=1000 * seconds,
            polling=500,
        )
        return time.perf_counter() - begun

    def start(self, attempts=6):
        """Choose Run > Run All Cells until a cell runs: the item does nothing before the kernel has
        connected, which the page does not always show."""
        from playwright.sync_api import TimeoutError

        running = """() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]
            .some(element => /\\[[*\\d]/.test(element.textContent))"""
        for attempt in range(attempts):
            self.menu("Run", "Run All Cells")
            try:
                self.page.wait_for_function(running, timeout=10_000)
                return
            except TimeoutError:
                if attempt == attempts - 1:
                    raise

    def menu(self, name, item):
        """Choose an item of the menu bar."""
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def errors(self):
        """The texts of all outputs that are errors, of widgets too."""
        return self.page.locator(
            '[data-mime-type="application/vnd.jupyter.error"]'
        ).all_inner_texts()

    def cell_with(self, text):
        """The code cell that contains a text."""
        return self.code_cells.filter(has=self.page.locator(".jp-InputArea-editor",
                                                            has_text=text)).first
