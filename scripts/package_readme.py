"""The README as the description of the package: links and pictures with whole addresses, because
package indexes show it without the repository. Called by hatchling while it builds."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

ADDRESS = "https://github.com/hhosseinian/Face_Recognition"
RAW = "https://raw.githubusercontent.com/hhosseinian/Face_Recognition/main"


def with_addresses(text: str) -> str:
    """Markdown whose relative links and pictures have whole addresses."""
    text = re.sub(r"!\[([^]]*)\]\((?!https?:)([^)]+)\)", rf"![\1]({RAW}/\2)", text)
    return re.sub(
        r"(?<!!)\[([^]]*)\]\((?!https?:|#)([^)]+)\)", rf"[\1]({ADDRESS}/blob/main/\2)", text
    )


class CustomMetadataHook(MetadataHookInterface):
    """Sets the readme of the package."""

    def update(self, metadata: dict) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": with_addresses(text)}
