"""The binding against include/crust.h, a C compiler and the library's list of symbols."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any

import crust
from crust import _config, _errors, _ffi, _loader
from support import REPOSITORY, TestCase, compiler

HEADER = REPOSITORY / "include" / "crust.h"
STRUCTS: dict[str, Any] = {
    "crust_peer_id": _ffi.PeerIdStruct,
    "crust_event": _ffi.EventStruct,
    "crust_callbacks": _ffi.CallbacksStruct,
    "crust_message": _ffi.MessageStruct,
    "crust_peer_info": _ffi.PeerInfoStruct,
    "crust_stats": _ffi.StatsStruct,
    "crust_nat": _ffi.NatStruct,
    "crust_nat_flow": _ffi.NatFlowStruct,
    "crust_nat_server": _ffi.NatServerStruct,
    "crust_nat_seen": _ffi.NatSeenStruct,
    "crust_nat_port": _ffi.NatPortStruct,
    "crust_lan_peer": _ffi.LanPeerStruct,
    "crust_known_peer": _ffi.KnownPeerStruct,
    "crust_group": _ffi.GroupStruct,
    "crust_group_info": _ffi.GroupInfoStruct,
    "crust_group_peer": _ffi.GroupPeerStruct,
    "crust_ban_info": _ffi.BanInfoStruct,
    "crust_gate_request": _ffi.GateRequestStruct,
}


def enumerators(prefix: str) -> dict[str, int]:
    """Return what the header numbers with a prefix."""
    found = re.findall(rf"^\s*{prefix}(\w+)\s*=\s*(-?\d+)", HEADER.read_text(), re.MULTILINE)
    return {name: int(value) for name, value in found}


def ask_compiler(questions: list[str]) -> list[int]:
    """Compile a program that prints the answers, and run it."""
    lines = "".join(f'    printf("%zu\\n", (size_t)({question}));\n' for question in questions)
    includes = '#include <stddef.h>\n#include <stdio.h>\n#include "crust.h"\n'
    program = f"{includes}int main(void) {{\n{lines}    return 0;\n}}\n"
    with tempfile.TemporaryDirectory() as directory:
        source, binary = Path(directory) / "layout.c", Path(directory) / "layout"
        source.write_text(program)
        subprocess.run([*compiler(), "-I", str(HEADER.parent), "-o", str(binary), str(source)], check=True)
        answers = subprocess.run([str(binary)], check=True, capture_output=True, text=True).stdout.split()
    return [int(answer) for answer in answers]


class Layout(TestCase):
    def test_structs_are_those_of_the_compiler(self) -> None:
        questions: list[str] = []
        ours: list[int] = []
        for name, struct in STRUCTS.items():
            questions.append(f"sizeof({name})")
            ours.append(ctypes.sizeof(struct))
            for field, _ in struct._fields_:
                questions += [f"offsetof({name}, {field})", f"sizeof((({name} *)0)->{field})"]
                ours += [getattr(struct, field).offset, getattr(struct, field).size]
        theirs = ask_compiler(questions)
        self.assertEqual(dict(zip(questions, ours)), dict(zip(questions, theirs)))

    def test_no_field_is_missing(self) -> None:
        text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
        declared = re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", text, re.DOTALL)
        self.assertEqual({name for name, _ in declared}, set(STRUCTS))
        for name, body in declared:
            fields = re.findall(r"(\w+)(?:\[\w+\])?\s*[,;]", body)
            self.assertEqual([field for field, _ in STRUCTS[name]._fields_], fields, name)

    def test_constants(self) -> None:
        names = ["PEER_ID_SIZE", "PEER_ID_TEXT", "SEED_SIZE", "MAX_MESSAGE", "MAX_APP_ID", "MAX_NETWORK_NAME"]
        theirs = ask_compiler([f"CRUST_{name}" for name in names])
        self.assertEqual([getattr(_ffi, name) for name in names], theirs)
        self.assertEqual(ask_compiler(["CRUST_ABI_VERSION"]), [_loader.ABI_VERSION])


class Functions(TestCase):
    def test_bound_are_the_exported(self) -> None:
        exported = (REPOSITORY / "capi" / "exports.txt").read_text().split()
        self.assertEqual(sorted(_ffi.BOUND), sorted(exported))

    def test_bound_are_the_declared(self) -> None:
        text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
        declared = re.findall(r"CRUST_CALL\s+(crust_\w+)\(", text)
        self.assertEqual(_ffi.BOUND, declared)

    def test_number_of_arguments(self) -> None:
        text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.DOTALL)
        for name, arguments in re.findall(r"CRUST_CALL\s+(crust_\w+)\((.*?)\);", text):
            count = 0 if arguments == "void" else arguments.count(",") + 1
            self.assertEqual(len(getattr(_ffi, name).argtypes), count, name)

    def test_the_interpreter_lock_is_released(self) -> None:
        self.assertIs(type(_ffi.library), ctypes.CDLL)


class Numbers(TestCase):
    def test_codes(self) -> None:
        declared = {"OK": 0, **enumerators("CRUST_ERR_")}
        self.assertEqual({code.name: int(code) for code in crust.Code}, declared)

    def test_names_are_those_of_the_library(self) -> None:
        for code in crust.Code:
            name = _ffi.crust_error_name(code).decode()
            self.assertEqual(crust.CrustError("", code).name, name)

    def test_every_code_has_a_class(self) -> None:
        shared = {crust.Code.OK, crust.Code.NO_MEMORY, crust.Code.BUFFER_TOO_SMALL, crust.Code.WOULD_DEADLOCK}
        shared |= {crust.Code.INTERNAL, crust.Code.BAD_HANDLE}
        classes = [type(_errors.error(code, "")) for code in crust.Code if code not in shared]
        self.assertEqual(len(set(classes)), len(classes))
        self.assertNotIn(crust.InternalError, classes)
        self.assertIs(type(_errors.error(-999, "x")), crust.InternalError)

    def test_event_types(self) -> None:
        ours = {name[6:]: value for name, value in vars(_ffi).items() if name.startswith("EVENT_")}
        self.assertEqual(ours, enumerators("CRUST_EVENT_"))

    def test_options(self) -> None:
        declared = enumerators("CRUST_OPT_")
        ours = {f"{name.upper()}_MS": number for name, number in _config._DURATIONS.items()}
        ours |= {
            name.upper() + "_BYTES" * name.endswith(("_queue", "_buffer")): number
            for name, number in _config._NUMBERS.items()
        }
        for name in (
            "NETWORK_NAME",
            "IDENTITY_FILE",
            "IDENTITY_SEED",
            "APP_ID",
            "ROLE",
            "NO_LISTEN",
            "NO_ACCEPT",
            "CIPHER",
            "NO_RESUME",
            "NO_NETWORK_WATCH",
            "RELAY",
            "NO_PORT_MAP",
            "CACHE",
            "BEACON",
            "GOSSIP",
            "ONLY",
            "TRACER",
            "KEY_LOG",
            "LOG_LEVEL",
        ):
            ours[name] = getattr(_config, f"_{name}")
        self.assertEqual(ours, declared)

    def test_roles_and_ways(self) -> None:
        text = HEADER.read_text()
        for prefix, kind in (
            ("CRUST_ROLE_", crust.Role),
            ("CRUST_HOW_", crust.How),
            ("CRUST_MEANS_", crust.Means),
            ("CRUST_BY_", crust.By),
            ("CRUST_GROUP_", crust.GroupState),
            ("CRUST_ALERT_", crust.AlertKind),
            ("CRUST_RELAY_", crust.Relay),
            ("CRUST_BEACON_", crust.Beacon),
            ("CRUST_GOSSIP_", crust.Gossip),
        ):
            declared = {
                name: int(value) for name, value in re.findall(rf"#define {prefix}(\w+)\s+(\d+)u", text)
            }
            self.assertEqual({m.name: int(m) for m in kind if m.name != "UNKNOWN"}, declared)
        self.assertIs(crust.How(77), crust.How.UNKNOWN)

    def test_log_levels(self) -> None:
        found = re.findall(r"#define CRUST_LOG_(\w+)\s+(\d+)u", HEADER.read_text())
        ours = {name[4:]: value for name, value in vars(_ffi).items() if name.startswith("LOG_")}
        self.assertEqual(ours, {name: int(value) for name, value in found})

    def test_nat(self) -> None:
        found = re.findall(r"#define CRUST_NAT_(\w+)\s+(\d+)u", HEADER.read_text())
        ours = {m.name: int(m) for m in crust.NatDepends}
        ours |= {f"PORTS_{m.name}": int(m) for m in crust.NatPorts}
        self.assertEqual(ours, {name: int(value) for name, value in found})

    def test_version(self) -> None:
        self.assertEqual(crust.version(), crust.__version__)
        self.assertTrue(crust.has("tcp"))
        self.assertTrue(crust.has("utp"))
        self.assertFalse(crust.has("carrier pigeon"))


if __name__ == "__main__":
    unittest.main()
