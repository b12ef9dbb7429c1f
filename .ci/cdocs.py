"""Makes the reference of the C ABI from its header: a page for each function.

    cdocs.py HEADER EXPORTS DIRECTORY

Writes DIRECTORY/index.html, NAME.html for each function, and the pages of what they speak
of: codes, options, events, constants, types. A name in a text leads to where it is
described; the errors that a comment names are listed with what they mean.

It ends with 1 when a function of EXPORTS is not declared or has no comment, and when a link
leads nowhere.
"""

from __future__ import annotations

import html
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

STYLE = """body { font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em }
pre, code { font: 14px/1.45 monospace } pre { background: #f4f4f4; padding: .8em; overflow-x: auto }
table { border-collapse: collapse } td { text-align: left; vertical-align: top; padding: .2em .8em .2em 0 }
a { text-decoration: none } nav { color: #666 } h2 { font-size: 1.1em }"""


@dataclass
class Function:
    """A function of the header."""

    name: str
    prototype: str
    comment: str
    section: str
    together: list[str] = field(default_factory=list)  # those that share the comment


@dataclass
class Value:
    """A number that has a name."""

    name: str
    value: str
    comment: str


@dataclass
class Header:
    """What a header declares."""

    preface: str = ""
    functions: dict[str, Function] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    about_types: dict[str, str] = field(default_factory=dict)


def plain(comment: str) -> str:
    """Return the text of a comment without its marks, lists as they are."""
    lines = [re.sub(r"^\s*/?\*+/?\s?", "", line).replace("*/", "") for line in comment.strip().splitlines()]
    return "\n".join(line.rstrip() for line in lines).strip()


def in_words(name: str) -> str:
    """Return what the name of a number says: CRUST_ERR_RESET is "reset"."""
    return " ".join(name.split("_")[2:] or name.split("_")[1:]).lower()


def parse(text: str) -> Header:
    """Read a header."""
    header = Header()
    preface = re.match(r"/\*.*?\*/", text, re.DOTALL)
    header.preface = plain(preface.group()) if preface else ""
    body = text[preface.end() if preface else 0 :]
    section, comment = "", ""
    members: list[str] = []
    token = re.compile(
        r"/\* ---- (?P<section>.*?) -* ?\*/"
        r"|(?P<comment>/\*.*?\*/)"
        r"|(?P<struct>typedef struct (?P<tag>crust_\w+) \{.*?\} (?P=tag);)"
        r"|(?P<function>CRUST_API [^;]*?CRUST_CALL (?P<name>crust_\w+)\([^;]*?\);)"
        r"|(?P<type>typedef [^;{]*?\(CRUST_CALL \*(?P<callback>crust_\w+)\)[^;]*;"
        r"|typedef [^;{]*?(?P<alias>crust_\w+);)"
        r"|(?P<value>^(?:#define +|    )(?P<constant>CRUST_[A-Z_0-9]+) +(?:= *)?(?P<number>-?\d+)u?,?"
        r"[ \t]*(?P<said>/\*.*?\*/)?)"
        r"|(?P<gap>\n\n)",
        re.DOTALL | re.MULTILINE,
    )
    for match in token.finditer(body):
        if match["section"]:
            section, comment = match["section"], ""
        elif match["comment"]:
            comment, members = plain(match["comment"]), []
        elif match["function"]:
            prototype = re.sub(r"CRUST_(API|CALL|MUST_CHECK) ", "", match["function"])
            members.append(match["name"])
            header.functions[match["name"]] = Function(match["name"], prototype, comment, section, members)
        elif match["struct"]:
            header.types[match["tag"]] = match["struct"]
            header.about_types[match["tag"]] = comment
            comment, members = "", []
        elif match["type"]:
            name = match["callback"] or match["alias"]
            header.types[name] = match["type"].replace("CRUST_CALL ", "")
            header.about_types[name] = comment
            comment, members = "", []
        elif match["value"] and not match["constant"].startswith("CRUST_VERSION"):
            said = plain(match["said"] or "") or in_words(match["constant"])
            header.values[match["constant"]] = Value(match["constant"], match["number"], said)
            comment, members = "", []
        elif match["gap"]:
            comment, members = "", []
    return header


def page_of(name: str, header: Header) -> str:
    """Return the page on which a name is described, with its place there; "" is none."""
    if name in header.functions:
        return f"{name}.html"
    if name in header.types:
        return f"types.html#{name}"
    if name not in header.values:
        return ""
    for prefix, page in (("CRUST_ERR_", "codes"), ("CRUST_OPT_", "options"), ("CRUST_EVENT_", "events")):
        if name.startswith(prefix):
            return f"{page}.html#{name}"
    return f"{'codes' if name == 'CRUST_OK' else 'constants'}.html#{name}"


def full_name(word: str, header: Header) -> str:
    """Return the name that a word in a comment means: INVALID is CRUST_ERR_INVALID."""
    for prefix in ("", "CRUST_ERR_", "CRUST_EVENT_", "CRUST_OPT_", "CRUST_"):
        if page_of(prefix + word, header):
            return prefix + word
    return ""


def linked(text: str, header: Header, here: str = "") -> str:
    """Return a text as HTML in which names lead to their pages."""

    def link(match: re.Match[str]) -> str:
        name = full_name(match.group(), header)
        if name in ("", here):
            return match.group()
        return f'<a href="{page_of(name, header)}">{match.group()}</a>'

    return re.sub(r"\bcrust_\w+\b|\b[A-Z][A-Z_0-9]+\b", link, html.escape(text, quote=False))


def paragraphs(text: str, header: Header, here: str = "") -> str:
    """Return the paragraphs of a text; what begins with a dash is a line of its own."""
    out = []
    for paragraph in re.split(r"\n\s*\n", text):
        joined = re.sub(r"\n\s*- ", "<br>&bull; ", linked(paragraph, header, here))
        out.append(f"<p>{joined}</p>")
    return "\n".join(out)


def document(title: str, body: str) -> str:
    """Return a page."""
    pages = " · ".join(
        f'<a href="{page}.html">{page}</a>' for page in ("codes", "options", "events", "constants", "types")
    )
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        f"<style>{STYLE}</style>\n"
        f'<nav><a href="index.html">C reference</a> · {pages}</nav>\n'
        f"<h1>{title}</h1>\n{body}\n</html>\n"
    )


def parameters(function: Function) -> list[tuple[str, str]]:
    """Return the names and types of what a function takes."""
    inside = re.sub(r"\s+", " ", function.prototype.split("(", 1)[1].rsplit(")", 1)[0])
    out = []
    for parameter in inside.split(", "):
        match = re.fullmatch(r"(.*?[ *])(\w+)(\[\w+\])?", parameter)
        if match:
            out.append((match[2], (match[1].strip() + (match[3] or ""))))
    return out


def errors(function: Function, header: Header) -> list[Value]:
    """Return the codes that the comment of a function names, in their order."""
    found = []
    for word in re.findall(r"\b[A-Z][A-Z_]+\b", function.comment):
        name = word if word.startswith("CRUST_ERR_") else f"CRUST_ERR_{word}"
        value = header.values.get(name)
        if value and value not in found:
            found.append(value)
    return sorted(found, key=lambda value: -int(value.value))


def events(function: Function, header: Header) -> list[Value]:
    """Return the events that the comment of a function names."""
    words = dict.fromkeys(re.findall(r"\b(?:CRUST_EVENT_)?([A-Z][A-Z_]+)\b", function.comment))
    names = [f"CRUST_EVENT_{word}" for word in words if f"CRUST_ERR_{word}" not in header.values]
    return [header.values[name] for name in names if name in header.values]


def table(values: list[Value], header: Header, rows: str = "") -> str:
    """Return a table of numbers."""
    for value in values:
        rows += (
            f'<tr id="{value.name}"><td><a href="{page_of(value.name, header)}">'
            f"<code>{value.name}</code></a></td>"
            f"<td>{value.value}</td><td>{linked(value.comment, header, value.name)}</td></tr>\n"
        )
    return f"<table>\n{rows}</table>"


def function_page(function: Function, header: Header) -> str:
    """Return the page of a function."""
    out = [f"<pre>{linked(function.prototype, header, function.name)}</pre>"]
    out.append(paragraphs(function.comment, header, function.name))
    takes = parameters(function)
    if takes:
        rows = "".join(
            f"<tr><td><code>{name}</code></td><td><code>{linked(kind, header)}</code></td></tr>\n"
            for name, kind in takes
        )
        out.append(f"<h2>Takes</h2>\n<table>\n{rows}</table>")
    if errors(function, header):
        out.append(f"<h2>Errors</h2>\n{table(errors(function, header), header)}")
    if events(function, header):
        out.append(f"<h2>Events</h2>\n{table(events(function, header), header)}")
    out.append("<h2>Threads</h2>\n" + paragraphs(threads(function), header))
    others = [name for name in function.together if name != function.name]
    if others:
        out.append("<h2>Described together with</h2>\n<p>" + linked(", ".join(others), header) + "</p>")
    out.append(f"<p>Declared in <code>crust.h</code>, section “{html.escape(title_of(function))}”.</p>")
    return document(function.name, "\n".join(out))


def title_of(function: Function) -> str:
    """Return the title of the section of a function, without what stands in brackets."""
    return function.section.split(" (")[0]


def threads(function: Function) -> str:
    """Return from where a function may be called, as the preface of the header has it."""
    if function.name in ("crust_poll", "crust_send_wait", "crust_service_free"):
        return "Any thread at any time; it blocks. Inside a callback it returns CRUST_ERR_WOULD_DEADLOCK."
    if re.search(r"\b[Pp]ure\b", function.comment) or "pure functions" in function.section:
        return "Any thread at any time, also inside a callback and after fork(). It has no state."
    if "crust_config *" in function.prototype:
        return "A configuration belongs to one thread at a time."
    return "Any thread at any time, also inside a callback; it does not block."


def index(header: Header) -> str:
    """Return the first page."""
    out = [paragraphs(header.preface, header)]
    section = None
    for function in header.functions.values():
        if function.section != section:
            out.append(
                ("</table>\n" if section else "") + f"<h2>{html.escape(title_of(function))}</h2>\n<table>"
            )
            section = function.section
        first = re.split(r"(?<=[.:;])\s", function.comment, maxsplit=1)[0].rstrip(".:;")
        link = f'<a href="{function.name}.html"><code>{function.name}</code></a>'
        out.append(f"<tr><td>{link}</td><td>{linked(first, header)}</td></tr>")
    out.append("</table>")
    return document("C reference of libcrust", "\n".join(out))


def write(header: Header, out: Path) -> None:
    """Write all pages."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "index.html").write_text(index(header), "utf-8")
    for function in header.functions.values():
        (out / f"{function.name}.html").write_text(function_page(function, header), "utf-8")
    pages: dict[str, list[Value]] = {"codes": [], "options": [], "events": [], "constants": []}
    for value in header.values.values():
        pages[page_of(value.name, header).split(".")[0]].append(value)
    for page, values in pages.items():
        (out / f"{page}.html").write_text(document(page.capitalize(), table(values, header)), "utf-8")
    types = [
        f'<h2 id="{name}">{name}</h2>\n{paragraphs(header.about_types[name], header, name)}\n'
        f"<pre>{linked(text, header, name)}</pre>"
        for name, text in header.types.items()
    ]
    (out / "types.html").write_text(document("Types", "\n".join(types)), "utf-8")


def dangling(out: Path) -> list[str]:
    """Return the links in pages that lead nowhere."""
    pages = {page.name: page.read_text("utf-8") for page in out.glob("*.html")}
    places = {name: set(re.findall(r'id="([^"]+)"', text)) for name, text in pages.items()}
    found = []
    for name, text in pages.items():
        for page, place in re.findall(r'href="([^"#]+)#?([^"]*)"', text):
            if page not in pages or (place and place not in places[page]):
                found.append(f"{name} leads to {page}#{place}, which is not there")
    return found


def main(arguments: list[str]) -> None:
    """Make the reference, or say what is wrong with the header."""
    if len(arguments) != 3:
        raise SystemExit(__doc__)
    header = parse(Path(arguments[0]).read_text("utf-8"))
    exports = Path(arguments[1]).read_text("utf-8").split()
    faults = [f"{name} is not declared" for name in exports if name not in header.functions]
    faults += [f"{f.name} has no comment" for f in header.functions.values() if len(f.comment) < 10]
    if faults:
        raise SystemExit("cdocs.py: " + "; ".join(faults))
    write(header, Path(arguments[2]))
    faults = dangling(Path(arguments[2]))
    if faults:
        raise SystemExit("cdocs.py: " + "; ".join(faults))
    print(
        f"{len(header.functions)} functions, {len(header.types)} types, {len(header.values)} numbers,"
        f" {sum(1 for f in header.functions.values() if errors(f, header))} functions with their errors"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
