"""What may be done with trained weights: it follows from all data that they learned from."""

NON_COMMERCIAL = (
    "The weights learned from photographs of AFLW, which its owners give out for non-commercial "
    "research only; for other uses take models5, whose training frames are under the MIT license."
)
MIT = "MIT, as the code; the training frames are published under the MIT license."
OWN = "The terms of the training data apply."

SHORT_TERMS = {NON_COMMERCIAL: "research", MIT: "anything (MIT)", OWN: "as its data"}


def sources_of(data: dict) -> list[str]:
    """The kinds of the data sets that a checkpoint learned from, in its `init` and `teacher` as
    well. data: the `data` of the checkpoint; those of earlier versions have one kind."""
    return sorted(set(data.get("sources") or [data.get("kind") or ""]))


def terms_of(data: dict) -> str:
    """One sentence about the use of a checkpoint's weights; data: the `data` of the checkpoint."""
    sources = sources_of(data)
    if "merlrav" in sources:
        return NON_COMMERCIAL
    return MIT if {*sources} <= {"official", "sample"} else OWN
