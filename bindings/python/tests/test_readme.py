"""The programs of README.md run as they stand."""

from __future__ import annotations

import re
import textwrap
import unittest

from support import TESTS, TestCase, run_python


class Readme(TestCase):
    def test_programs(self) -> None:
        text = (TESTS.parent / "README.md").read_text()
        programs = [
            textwrap.dedent(code)
            for code in re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
        ]
        self.assertEqual(len(programs), 4)
        printed = []
        for program in programs:
            result = run_python(program)
            self.assertEqual((result.returncode, result.stderr), (0, ""), program)
            printed.append(result.stdout)
        for said in printed[:2]:
            self.assertRegex(said, r"^[0-9a-f]{8} says hello\n$")


if __name__ == "__main__":
    unittest.main()
