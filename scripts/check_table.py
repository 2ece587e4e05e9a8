"""Write what is checked, when, and what happens into docs/reference/checks.md, from what is noted beside each check.

    python scripts/check_table.py
"""

import importlib
import pkgutil
from pathlib import Path

import segtrain.data
from segtrain.data.checks import CHECKS, TIMES

PAGE = Path(__file__).parents[1] / "docs/reference/checks.md"
BEGIN, END = "<!-- begin generated: checks -->\n", "<!-- end generated -->\n"
ELSEWHERE = ("segtrain.training.resume", "segtrain.training.teacher", "segtrain.inference.sanity_check")


def import_checks() -> None:
    """Import every module that notes checks."""
    found = pkgutil.walk_packages(segtrain.data.__path__, "segtrain.data.")
    for name in (*(module.name for module in found), *ELSEWHERE):
        importlib.import_module(name)


def check_tables() -> str:
    """Return the tables in Markdown, one for each time."""
    import_checks()
    noted = [check for place in sorted(CHECKS) for check in CHECKS[place]]
    parts = []
    for time in TIMES:
        rows = [f"| {check.what} | {check.then}{f' (`{check.kind}`)' if check.kind else ''} |"
                for check in noted if check.when == time]
        head = f"## {time[0].upper()}{time[1:]}\n\n| what is checked | what happens |\n|---|---|"
        parts.append("\n".join([head, *dict.fromkeys(rows), ""]))
    return "\n".join(parts)


def updated() -> str:
    """Return the page as it should be."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    return f"{before}{BEGIN}\n{check_tables()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(updated(), encoding="utf-8")
