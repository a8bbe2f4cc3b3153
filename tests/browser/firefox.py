"""Firefox without a window, driven by WebDriver BiDi: Playwright drives an installed Chromium, but
only Firefox builds of its own."""

import json
import re
import shutil
import subprocess
import time

import websocket


def find_firefox():
    """The path of an installed Firefox, or None."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """A browser with one page; `profile`: an empty folder."""

    def __init__(self, profile):
        self.process = subprocess.Popen(
            [
                find_firefox(),
                "--headless",
                "--no-remote",
                "--profile",
                str(profile),
                "--remote-debugging-port",
                "0",
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            for line in self.process.stderr:
                if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                    break
            else:
                raise RuntimeError("Firefox did not start")
            self.socket = websocket.create_connection(
                f"{found[1]}/session", timeout=60, suppress_origin=True
            )
            self.count = 0
            self.call("session.new", capabilities={})
            self.page = self.call("browsingContext.getTree")["contexts"][0]["context"]
        except BaseException:
            self.close()
            raise

    def call(self, method, **parameters):
        """Send a command -> its result."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": parameters}))
        while (reply := json.loads(self.socket.recv())).get("id") != self.count:
            pass  # an event
        if reply["type"] == "error":
            raise RuntimeError(f"{method}: {reply['message']}")
        return reply["result"]

    def goto(self, address):
        self.call("browsingContext.navigate", context=self.page, url=address, wait="complete")

    def evaluate(self, expression):
        """A text, number or nothing."""
        reply = self.call(
            "script.evaluate",
            expression=expression,
            awaitPromise=True,
            target={"context": self.page},
        )
        if reply["type"] != "success":
            raise RuntimeError(reply["exceptionDetails"]["text"])
        return reply["result"].get("value")

    def wait_for(self, expression, seconds=30):
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} did not become true"
            time.sleep(0.05)

    def choose_file(self, selector, path):
        node = self.call(
            "browsingContext.locateNodes",
            context=self.page,
            locator={"type": "css", "value": selector},
        )["nodes"][0]
        self.call(
            "input.setFiles",
            context=self.page,
            element={"sharedId": node["sharedId"]},
            files=[str(path)],
        )

    def close(self):
        self.process.kill()
        self.process.wait()
