"""A real JupyterLab in a real browser: starts the server, opens a notebook, runs all cells, reads
what is on the page."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time

# all cells are in the page, not only the visible
SETTINGS = {"windowingMode": "none", "autoStartDefaultKernel": True}

SESSION = "window.jupyterapp.shell.currentWidget.sessionContext"
KERNEL = f"{SESSION}?.session?.kernel"
# the texts of all outputs that are errors, of widgets too
ERRORS = """() => [...document.querySelectorAll('.jp-OutputArea-output')]
    .map(element => element.textContent)
    .filter(text => text.includes('Traceback (most recent call last)'))"""
# every cell has a number, or one shows an error
FINISHED = f"""() => {{
    const elements = document.querySelectorAll('.jp-CodeCell .jp-InputPrompt');
    const prompts = [...elements].map(element => element.textContent);
    return prompts.length > 5 && (prompts.every(text => /\\[\\d+\\]/.test(text))
        || ({ERRORS})().length > 0);
}}"""


@contextlib.contextmanager
def server(root, scratch):
    """A JupyterLab that serves the folder `root` on loopback -> its address. Its own settings lie
    in `scratch`."""
    settings = scratch / "settings" / "@jupyterlab" / "notebook-extension"
    settings.mkdir(parents=True)
    (settings / "tracker.jupyterlab-settings").write_text(json.dumps(SETTINGS))
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "JUPYTERLAB_SETTINGS_DIR": str(scratch / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(scratch / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(scratch / "config"),
        "JUPYTER_RUNTIME_DIR": str(scratch / "runtime"),
        "IPYTHONDIR": str(scratch / "ipython"),
    }
    words = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
        "--ServerApp.ip=127.0.0.1",
        "--LabApp.expose_app_in_browser=True",
        "--ServerApp.port=0",
        "--IdentityProvider.token=",
        "--ServerApp.disable_check_xsrf=True",
        f"--ServerApp.root_dir={root}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]
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
        self.wait_for_kernel()

    def wait_for_kernel(self):
        """Wait until the kernel has answered: cells that are run earlier may never run, and the
        page's own indicator says "idle" before."""
        self.page.wait_for_function(
            f"() => {KERNEL}?.connectionStatus === 'connected'", timeout=120_000
        )
        self.page.evaluate(f"""async () => {{
            await {SESSION}.ready;
            await {KERNEL}.info;
        }}""")
        self.page.wait_for_function(f"() => {KERNEL}?.status === 'idle'", timeout=120_000)

    @property
    def code_cells(self):
        return self.page.locator(".jp-Notebook .jp-CodeCell")

    def run_all(self, seconds, patience=200):
        """Choose Run > Run All Cells and wait until the last cell has run, or one has failed.

        JupyterLab may lose requests while it connects: where no cell has finished for `patience`
        seconds all are run once more. Fails with the state of all cells after `seconds`.
        """
        self.menu("Edit", "Clear Outputs of All Cells")  # and the committed execution counts
        begun = changed = time.perf_counter()
        self.menu("Run", "Run All Cells")
        again, before = False, None
        while not self.page.evaluate(FINISHED):
            now, prompts = time.perf_counter(), self.prompts()
            if prompts != before:
                before, changed = prompts, now
            if now - begun > seconds or (again and now - changed > patience):
                raise AssertionError(
                    f"after {now - begun:.0f} s not all cells have run: {' '.join(prompts)}"
                )
            if now - changed > patience:
                again, changed = True, now
                self.menu("Run", "Run All Cells")
            self.page.wait_for_timeout(500)

    def prompts(self):
        """What stands before each code cell: [1]:, [*]: or [ ]:."""
        return self.page.locator(".jp-CodeCell .jp-InputPrompt").all_inner_texts()

    def menu(self, name, item):
        """Choose an item of the menu bar."""
        self.page.get_by_role("menuitem", name=name, exact=True).click()
        self.page.get_by_role("menuitem", name=item, exact=True).click()

    def errors(self):
        """The texts of all outputs that are errors, of widgets too."""
        return self.page.evaluate(ERRORS)

    def cell_with(self, text):
        """The code cell that contains a text."""
        return self.code_cells.filter(
            has=self.page.locator(".jp-InputArea-editor", has_text=text)
        ).first
