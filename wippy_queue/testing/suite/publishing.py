"""What is published arrives as it was, in order, once."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from ...cancellation import Cancellation
from ...errors import Cancelled, MessageTooLargeError
from ...message import HeaderValue, Message
from .base import SuiteBase
from .bench import QUEUE, Bench, ids, message

LARGE = 1024 * 1024


class Publishing(SuiteBase):
    """A driver moves ids, bytes and headers, and changes none of them."""

    def arrives(self, bench: Bench, sent: Message) -> None:
        """Publish a message, and fail where it arrives changed."""
        bench.driver.publish(QUEUE, [sent], self.soon)
        arrived = bench.as_sent(bench.take_one().message, sent)
        assert arrived.id == sent.id
        # Without the bodies themselves: pytest takes minutes to compare large ones in a failure.
        changed = _first_difference(arrived.body, sent.body)
        sizes = f"{len(sent.body)} bytes were sent and {len(arrived.body)} arrived"
        assert changed is None, f"the body is another from byte {changed} on; {sizes}"
        assert dict(arrived.headers) == dict(sent.headers)

    def test_message_arrives_with_id_body_and_headers(self, bench: Bench) -> None:
        """What is handed over is what was published; options of the queue are no headers."""
        self.arrives(bench, Message("id", b'{"a": 1}', {"message_type": "mail", "number": 1}))

    def test_message_without_headers_gets_none(self, bench: Bench) -> None:
        """A driver keeps its own bookkeeping to itself."""
        self.arrives(bench, Message("id", b"body", {}))

    def test_cancelled_handler_can_publish(self, bench: Bench) -> None:
        """A cancellation ends waiting: what has not to wait for room or a broker is published."""
        cancellation = Cancellation()
        cancellation.cancel()
        try:
            bench.publish("a", timeout=self.soon, cancellation=cancellation)
        except Cancelled:
            pytest.fail("a publish that has not to wait was cancelled")
        assert bench.drain(1) == ["a"]

    def test_empty_body_arrives(self, bench: Bench) -> None:
        """No bytes are a body too."""
        self.arrives(bench, Message("id", b"", {}))

    def test_every_byte_arrives(self, bench: Bench) -> None:
        """A body need not be text."""
        self.arrives(bench, Message("id", bytes(range(256)), {}))

    def test_large_body_arrives(self, bench: Bench) -> None:
        """Bodies are carried up to a mebibyte, or to half of what the driver states."""
        size = min(LARGE, (self.features.max_message_size or LARGE * 2) // 2)
        self.arrives(bench, Message("id", b"\x00\xff" * (size // 2), {}))

    def test_too_large_body_is_refused(self, bench: Bench) -> None:
        """A body above the driver's limit is an error at once, with its account."""
        limit = self.features.max_message_size
        self.needs(limit is not None, "max_message_size is None: there is no limit")
        too_large = Message("large", b"x" * ((limit or 0) + 1), {})
        with pytest.raises(MessageTooLargeError) as caught:
            bench.driver.publish(QUEUE, [too_large], 0)
        assert caught.value.refused == ("large",)
        bench.is_empty()

    def test_text_headers_arrive(self, bench: Bench) -> None:
        """Text may be empty, be of any script, and look like a number."""
        headers = {"empty": "", "plain": "text", "script": "żółć 漢字 🐇", "digits": "1"}
        self.arrives(bench, Message("id", b"", headers))

    def test_number_headers_arrive_as_their_kind(self, bench: Bench) -> None:
        """Whole numbers, fractions and truth values are not taken for each other."""
        headers: dict[str, HeaderValue] = {
            "zero": 0,
            "negative": -1,
            "large": 2**53 - 1,
            "fraction": 0.1,
            "whole_fraction": 2.0,
            "one": 1,
            "yes": True,
            "no": False,
        }
        sent = Message("id", b"", headers)
        bench.driver.publish(QUEUE, [sent], 0)
        arrived = bench.as_sent(bench.take_one().message, sent).headers
        assert {name: (type(value), value) for name, value in arrived.items()} == {
            name: (type(value), value) for name, value in headers.items()
        }

    def test_header_names_arrive(self, bench: Bench) -> None:
        """Names keep their case and their marks; reserved ones are a driver's to carry too."""
        self.arrives(
            bench, Message("id", b"", {"Case": 1, "a-b": 2, "a.b": 3, "x_a": 4, "attempts": 5})
        )

    def test_ids_of_any_text_arrive(self, bench: Bench) -> None:
        """An id is any text of up to 255 bytes."""
        for id in ("a b", "żółć", "x" * 255):
            self.arrives(bench, Message(id, b"", {}))

    def test_callers_message_is_not_changed(self, bench: Bench) -> None:
        """Headers that a caller gave are the same afterwards."""
        headers: dict[str, HeaderValue] = {"a": 1}
        bench.driver.publish(QUEUE, [Message("id", b"body", headers)], 0)
        bench.take_one().nack()
        bench.take_one().ack()
        assert headers == {"a": 1}

    def test_publish_of_nothing_does_nothing(self, bench: Bench) -> None:
        """A batch may be empty."""
        bench.publish()
        bench.is_empty()

    def test_batch_arrives_in_order(self, bench: Bench) -> None:
        """The messages of one publish keep their order."""
        self.needs_order()
        bench.publish("a", "b", "c", "d")
        assert bench.drain(4) == ["a", "b", "c", "d"]

    def test_publishes_arrive_in_order(self, bench: Bench) -> None:
        """A later publish is behind an earlier one."""
        self.needs_order()
        for name in ("a", "b", "c", "d"):
            bench.publish(name)
        assert bench.drain(4) == ["a", "b", "c", "d"]

    def test_large_batch_arrives_once(self, bench: Bench) -> None:
        """A batch may be longer than what the broker takes in one request."""
        names = [f"{number:04}" for number in range(1000)]
        bench.driver.publish(QUEUE, [message(name) for name in names], self.soon)
        arrived = bench.drain(1000)
        assert (arrived if self.features.ordered else sorted(arrived)) == names
        bench.is_empty()

    def test_publishers_do_not_disturb_each_other(self, bench: Bench) -> None:
        """Of what many threads publish at once, each message arrives once."""
        bench.driver.declare_queue(bench.config())
        threads = [[f"{thread}.{number:03}" for number in range(50)] for thread in range(4)]

        def publish_each(names: list[str]) -> None:
            for name in names:
                bench.publish(name, timeout=self.soon)

        publishing = [
            bench.call(partial(publish_each, names), f"publisher {names[0]}") for names in threads
        ]
        arrived = bench.drain(200)
        for call in publishing:
            bench.result(call)
        assert Counter(arrived) == Counter(name for names in threads for name in names)
        bench.is_empty()

    def test_message_stays_where_nobody_takes_it(self, bench: Bench) -> None:
        """What was published by one thread can be taken by any, later."""
        bench.within(lambda: bench.publish("a"), "publish")
        assert ids(bench.within(bench.take, "take")) == ["a"]


def _first_difference(one: bytes, other: bytes) -> int | None:
    """Return where two bodies begin to differ, ``None`` where they are equal."""
    if one == other:
        return None
    differing = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))
