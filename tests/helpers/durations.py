"""Print how long tests took, by folder and the slowest: `python durations.py JUNIT.XML`."""

import sys
from collections import defaultdict
from xml.etree import ElementTree


def main(path):
    folders, slowest = defaultdict(lambda: [0, 0.0]), []
    for case in ElementTree.parse(path).iter("testcase"):
        *where, file = case.get("classname").split(".")
        seconds = float(case.get("time"))
        count = folders["/".join(where[:2])]
        count[0] += 1
        count[1] += seconds
        slowest.append((seconds, file, case.get("name")))
    print("| folder | tests | seconds |\n| --- | --- | --- |")
    for folder, (tests, seconds) in sorted(folders.items()):
        print(f"| `{folder}` | {tests} | {seconds:.0f} |")
    for seconds, file, name in sorted(slowest, reverse=True)[:20]:
        print(f"{seconds:8.1f} s  {file}: {name}")


if __name__ == "__main__":
    main(sys.argv[1])
