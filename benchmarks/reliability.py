"""Repeated tests of malformed input and of failures; the totals are written to
docs/reliability.md."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.speed import machine
from facial_keypoints.command import bounded_number, run_command
from facial_keypoints.errors import DataError
from research import HOME
from research.evaluation.results import put_tables


PAGE = HOME / "docs" / "reliability.md"
# group: (test files, pytest -k expression, what is repeated: the cases of a test or the whole test)
GROUPS = {
    "Malformed files, names, parameters, servers": ("test_fuzz.py", "", "cases"),
    "Killed runs, full disks, two runs at once": ("test_interruptions.py", "", "rounds"),
    "Images of every format, archives, downloads": ("test_sources.py", "", ""),
    "Attacks on the commands": ("test_hostile.py", "", ""),
    "Checkpoints and exported models": (
        "test_models.py test_exported_models.py",
        "checkpoint or half or weights or flipped or refused",
        "",
    ),
    "Annotation of many photos": ("test_annotate.py", "", ""),
    "Clusters and several processes": ("test_cluster.py test_parallel.py", "", ""),
    "The same result for the same seed": (
        "test_train.py test_data_load.py test_sample_faces.py",
        "same_seed or any_number or same_end or not_a_number or gives_the_same",
        "",
    ),
    "Privacy; nothing is downloaded at import": (
        "test_uses.py test_video.py test_repository.py",
        "not_found_again or found_again or fetched",
        "",
    ),
}


def run_tests(files, chosen, cases):
    """Run tests once -> numbers of tests that passed, failed and were skipped, and the names of
    those that failed with the ends of their messages."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        words = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "--junit-xml",
            report,
            *(HOME / "tests" / file for file in files.split()),
        ]
        done = subprocess.run(
            [*map(str, words), *(["-k", chosen] if chosen else [])],
            cwd=HOME,
            capture_output=True,
            text=True,
            env={**os.environ, "FUZZ_CASES": str(cases)},
        )
        if not report.exists():
            raise DataError(f"pytest did not run:\n{done.stdout[-1000:]}{done.stderr[-1000:]}")
        counts, names = [0, 0, 0], []
        for case in ElementTree.parse(report).iter("testcase"):
            parts = {part.tag: part.get("message", "") for part in case}
            failed = parts.keys() & {"failure", "error"}
            counts[1 if failed else 2 if "skipped" in parts else 0] += 1
            names += [f"{case.get('name')}: {parts[tag][-500:]}" for tag in failed]
    return counts, names


def table(rows, cases, rounds):
    """Rows (group, tests, situations, failed) -> the Markdown between the page's markers."""
    lines = [
        f"`python benchmarks/reliability.py --cases {cases} --rounds {rounds}` on {machine()}:",
        "",
        "| group | tests | situations | failed |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {group} | {tests} | {tried:,} | {failed} |" for group, tests, tried, failed in rows
    ]
    total = [sum(row[k] for row in rows) for k in (1, 2, 3)]
    return "\n".join([*lines, f"| **all** | {total[0]} | {total[1]:,} | {total[2]} |"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--cases",
        type=bounded_number(int, 1),
        default=2000,
        help="malformed inputs per reader (default: %(default)s)",
    )
    parser.add_argument(
        "--rounds",
        type=bounded_number(int, 1),
        default=10,
        help="repetitions of the tests with killed runs (default: %(default)s)",
    )
    options = parser.parse_args()
    rows = []
    for group, (files, chosen, counting) in GROUPS.items():
        tests, tried, wrong = 0, 0, 0
        for _ in range(options.rounds if counting == "rounds" else 1):
            (passed, failed, _), names = run_tests(files, chosen, options.cases)
            tests, wrong = passed + failed, wrong + failed
            tried += (passed + failed) * (options.cases if counting == "cases" else 1)
            for name in names:
                print(f"failed: {name}", flush=True)
        rows.append((group, tests, tried, wrong))
        print(f"{group:<50} {tried:>8,} situations, {wrong} failed", flush=True)
    put_tables(PAGE, reliability=table(rows, options.cases, options.rounds))
    print(f"written: {PAGE}")
    return 1 if sum(row[3] for row in rows) else 0


if __name__ == "__main__":
    run_command(main)
