#!/usr/bin/env python3
"""Draws docs/gossip.svg and writes the table of docs/GOSSIP.md from what the simulation of gossip measured.

CRUST_GOSSIP_NODES=10000 go test ./core/internal/gossip -run TestScale -timeout 30m -update
pip install matplotlib==3.9.4
python3 docs/plot-gossip.py
"""

import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parent
DATA = DOCS.parent / "core/internal/gossip/testdata/scale.json"
BLUE, ORANGE, GREEN, GREY = "#2a6fbb", "#d1651f", "#2f8f5b", "#888888"


def draw(rows):
    """Draw the two panels of docs/gossip.svg."""
    plt.rcParams.update(
        {"svg.hashsalt": "gossip", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    )
    nodes = [r["nodes"] for r in rows]
    figure, (time, size) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    lines = [
        ("99 % know who came", BLUE, "-", [r["known"]["99"] for r in rows]),
        ("99 % forgot who departed", ORANGE, "-", [r["forgotten"]["99"] for r in rows]),
        ("half know who came", BLUE, ":", [r["known"]["50"] for r in rows]),
        ("half forgot who departed", ORANGE, ":", [r["forgotten"]["50"] for r in rows]),
    ]
    for label, colour, style, values in lines:
        time.plot(nodes, values, style, color=colour, marker="o", label=label)
    time.set(xscale="log", xlabel="nodes", ylabel="seconds", title="Time", ylim=(0, None))
    lines = [
        ("for one that comes", BLUE, "-", [r["known_bytes"] for r in rows]),
        ("for one that departs", ORANGE, "-", [r["forgotten_bytes"] for r in rows]),
        ("a second, when nothing happens", GREEN, "-", [r["idle_bytes"] for r in rows]),
    ]
    for label, colour, style, values in lines:
        size.plot(nodes, values, style, color=colour, marker="o", label=label)
    size.set(xscale="log", xlabel="nodes", ylabel="bytes", title="Sent by a node, on average", ylim=(0, 1000))
    for axes in (time, size):
        axes.set_xticks(nodes, [f"{n:,}" for n in nodes])
        axes.minorticks_off()
        axes.grid(axis="y", color=GREY, alpha=0.25)
        axes.legend(frameon=False, fontsize=9, loc="best")
    figure.savefig(DOCS / "gossip.svg", metadata={"Date": None})


def table(rows):
    """Return the table of docs/GOSSIP.md."""
    head = [
        "nodes",
        "half know",
        "99 % know",
        "all know",
        "bytes a node",
        "half forgot",
        "99 % forgot",
        "all forgot",
        "bytes a node",
        "newcomer knows 99 %",
        "KiB for that",
        "idle: bytes/s a node",
        "the one that sends most",
        "vanished one forgotten within",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for r in rows:
        known, forgotten = r["known"], r["forgotten"]
        cells = [f"{r['nodes']:,}"]
        cells += [f"{known[s]:.2f} s" for s in ("50", "99", "100")] + [f"{r['known_bytes']:.0f}"]
        cells += [f"{forgotten[s]:.2f} s" for s in ("50", "99", "100")] + [f"{r['forgotten_bytes']:.0f}"]
        cells += [f"{r['caught_up']:.1f} s", f"{r['caught_up_bytes'] / 1024:,.0f}"]
        cells += [f"{r['idle_bytes']:.0f}", f"{r['most_idle_bytes']:.0f}", f"{r['life'] / 3600:.1f} h"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    """Write both."""
    rows = json.loads(DATA.read_text())
    draw(rows)
    page = DOCS / "GOSSIP.md"
    text = re.sub(
        r"(<!-- scale: begin -->\n).*?(<!-- scale: end -->)",
        lambda m: m[1] + table(rows) + m[2],
        page.read_text(),
        flags=re.S,
    )
    page.write_text(text)


if __name__ == "__main__":
    main()
