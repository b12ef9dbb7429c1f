from __future__ import annotations

import logging
import threading
import time

import crust
from crust import _ffi, _log
from support import PATIENCE, TestCase, new_network, new_service, wait_for


class Keeper(logging.Handler):
    """Keeps what it gets, and calls the service as a program may."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.service: crust.Service | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        if self.service is not None:
            self.service.poll(timeout=0)
            self.service.stats()

    def names(self) -> list[str]:
        return [record.__dict__["crust_name"] for record in self.records]


class Logs(TestCase):
    def setUp(self) -> None:
        super().setUp()
        self.keeper = Keeper()
        _log.logger.addHandler(self.keeper)
        _log.logger.setLevel(logging.DEBUG)
        _log.logger.propagate = False

        def undo() -> None:
            _log.logger.removeHandler(self.keeper)
            _log.logger.setLevel(logging.NOTSET)
            _log.logger.propagate = True

        self.addCleanup(undo)

    def test_records_go_to_logging(self) -> None:
        began = time.time()
        network = new_network()
        with new_service(network) as other, new_service(network, log_level=logging.INFO) as one:
            at = wait_for(other, crust.ListenerStarted).endpoint
            one.connect_endpoint(at)
            wait_for(one, crust.Connected)
            deadline = time.monotonic() + PATIENCE
            while "connected" not in self.keeper.names() and time.monotonic() < deadline:
                one.poll(timeout=0.05)  # the record may come a moment after the event
        self.assertEqual(self.keeper.names().count("connected"), 1)
        for record in self.keeper.records:
            self.assertEqual((record.name, record.levelno), ("crust", logging.INFO))
            self.assertTrue(began - 1 <= record.created <= time.time() + 1)
        told = next(r for r in self.keeper.records if r.__dict__["crust_name"] == "connected")
        attrs = told.__dict__["crust_attrs"]
        self.assertEqual((attrs["peer"], attrs["how"]), (str(other.id)[:8], "dialed"))
        self.assertIn(f"connected peer={attrs['peer']} ", told.getMessage())

    def test_records_come_while_nothing_else_does(self) -> None:
        with new_service(new_network(), log_level=logging.INFO) as one:
            self.keeper.service = one
            while one.poll(timeout=0.1):
                pass
            seen = threading.Event()

            def wait() -> None:
                one.poll(timeout=PATIENCE)
                seen.set()

            waiter = threading.Thread(target=wait)
            waiter.start()
            one.ban(["203.0.113.5"])  # which is no event
            deadline = time.monotonic() + PATIENCE
            while "banned" not in self.keeper.names() and time.monotonic() < deadline:
                time.sleep(0.01)
            self.assertIn("banned", self.keeper.names())
            self.assertFalse(seen.is_set())
            one.wakeup()
            waiter.join()

    def test_what_handlers_raise_stops_nothing(self) -> None:
        def deny(_: logging.LogRecord) -> bool:
            raise ValueError("a bug of the program's")

        _log.logger.addFilter(deny)
        self.addCleanup(_log.logger.removeFilter, deny)
        with new_service(new_network(), log_level=logging.DEBUG) as one:
            wait_for(one, crust.ListenerStarted)
        self.assertEqual(self.keeper.records, [])

    def test_levels(self) -> None:
        for level, number in (
            (logging.CRITICAL, _ffi.LOG_ERROR),
            (logging.ERROR, _ffi.LOG_ERROR),
            (logging.WARNING, _ffi.LOG_WARN),
            (logging.INFO + 5, _ffi.LOG_INFO),
            (logging.DEBUG, _ffi.LOG_DEBUG),
            (1, _ffi.LOG_DEBUG),
        ):
            self.assertEqual(_log.log_number(level), number)
        for wrong in ("info", True, None, 1.5):
            with self.assertRaises(crust.Invalid):
                _log.log_number(wrong)

    def test_attributes_as_text(self) -> None:
        record = _log.Record(
            _ffi.LOG_WARN, 1.5, "alert", b'{"text":"two words","count":3,"none":false,"code":""}'
        )
        record.tell()
        told = self.keeper.records[0]
        self.assertEqual(told.getMessage(), 'alert text="two words" count=3 none=false code=""')
        self.assertEqual((told.levelno, told.created, told.msecs), (logging.WARNING, 1.5, 500.0))
