"""What is tried against this project, how often, and what happened: repeats the tests of faults,
writes docs/reliability.md."""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.speed import machine
from facial_keypoints.errors import DataError, bounded_number, run_command
from facial_keypoints.files import atomic_write

HOME = Path(__file__).resolve().parents[1]

PAGE = HOME / "docs" / "reliability.md"
SUBJECTS = {  # title: (file of tests, which of them, what one call of a test counts for)
    "Spoiled files, names, parameters, servers": ("test_fuzz.py", "", "cases"),
    "Killed runs, full disks, two runs at once": ("test_interruptions.py", "", "rounds"),
    "Pictures of every kind, archives, downloads": ("test_sources.py", "", ""),
    "Traps that were found by attacking the commands": ("test_hostile.py", "", ""),
    "Checkpoints and exported models": ("test_models.py test_exported_models.py",
                                        "checkpoint or half or weights or flipped or refused", ""),
    "Annotation of many photos": ("test_annotate.py", "", ""),
    "Clusters and several processes": ("test_cluster.py test_parallel.py", "", ""),
    "The same seed, the same end": ("test_train.py test_data_load.py test_sample_faces.py",
                                    "same_seed or any_number or same_end or not_a_number or "
                                    "gives_the_same", ""),
    "Privacy, and nothing fetched unasked": ("test_uses.py test_video.py test_repository.py",
                                             "be_found or found_again or fetched", ""),
}


def run_tests(files, chosen, cases):
    """Run tests once -> {title: [passed, failed, skipped]} by what they are called."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "told.xml")
        words = [sys.executable, "-m", "pytest", "-q", "--junit-xml", told,
                 *(HOME / "tests" / file for file in files.split())]
        done = subprocess.run([*map(str, words), *(["-k", chosen] if chosen else [])], cwd=HOME,
                              capture_output=True, text=True,
                              env={**os.environ, "FUZZ_CASES": str(cases)})
        if not told.exists():
            raise DataError(f"pytest did not run:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
        counts = defaultdict(lambda: [0, 0, 0])
        for case in ElementTree.parse(told).iter("testcase"):
            name, _, parameter = case.get("name").partition("[")
            title = name.removeprefix("test_").replace("_", " ")
            title += f": {parameter.rstrip(']')}" if files == "test_fuzz.py" and parameter else ""
            told_of = {part.tag for part in case}
            counts[title][1 if told_of & {"failure", "error"} else 2 if "skipped" in told_of
                          else 0] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=bounded_number(int, 1), default=2000,
                        help="of each reader (default: %(default)s)")
    parser.add_argument("--rounds", type=bounded_number(int, 1), default=10,
                        help="of killed runs (default: %(default)s)")
    options = parser.parse_args()
    lines, cases, failed = [], 0, 0
    for subject, (files, chosen, counting) in SUBJECTS.items():
        totals = defaultdict(lambda: [0, 0, 0])
        for _ in range(options.rounds if counting == "rounds" else 1):
            for title, counts in run_tests(files, chosen, options.cases).items():
                totals[title] = [a + b for a, b in zip(totals[title], counts, strict=True)]
        lines += [f"\n## {subject}\n", "| what must hold | tried | what happened |",
                  "| --- | ---: | --- |"]
        for title, (passed, wrong, skipped) in totals.items():
            tried = (passed + wrong) * (options.cases if counting == "cases" else 1)
            happened = "not tried: an optional package is missing" if skipped and not tried else (
                f"**failed {wrong} times**" if wrong else "held every time")
            cases, failed = cases + tried, failed + wrong
            lines.append(f"| {title} | {tried:,} | {happened} |")
            print(f"{title:<90} {tried:>6}  {happened}", flush=True)
    atomic_write(
        PAGE,
        f"""# Reliability

Made by `python benchmarks/reliability.py --cases {options.cases} --rounds {options.rounds}` on
{machine()}:
{cases:,} cases. Each line is a test of the same name in `tests/`. `make test` feeds 25 spoiled
files to each reader and kills one run of each kind; `make fuzz` feeds 2,000 to each.
"""
        + "\n".join(lines)
        + "\n",
    )
    print(f"written: {PAGE}")
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
