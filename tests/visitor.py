"""Somebody on the Circuit page without a browser: Streamlit's own messages over its WebSocket.

A browser for each of many sessions takes more of a small machine than the server does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

_START_S = 120.0


class Visitor:
    """One session: it paints, clicks heads, and knows which of its clicks is on screen.

    said: the words of every alert and heading of the page so far.
    """

    def __init__(self, connection: ClientConnection, query: str) -> None:
        self._connection, self._query = connection, query
        self._picture: Any = None
        self._fragment = ""
        self._repeats: dict[str, asyncio.Task[None]] = {}
        self._served = -1
        self._changed = asyncio.Condition()
        self._off: set[str] = set()
        self._sequence = 0
        self.said: list[str] = []

    @property
    def heads(self) -> list[str]:
        """The heads in the picture, as the picture calls them."""
        return [node["id"] for node in json.loads(self._picture.json)["nodes"]]

    async def painted(self, patience_s: float = _START_S) -> None:
        """Come back when the first numbers are there."""
        await self._wait_until_served(0, patience_s)

    async def click(self, head: str, patience_s: float) -> None:
        """Switch a head, and come back when the numbers for it are there; or TimeoutError."""
        self._off ^= {head}
        self._sequence += 1
        step = {"sequence": self._sequence, "off": sorted(self._off), "switched": []}
        message = {"epoch": 0, "steps": [step]}
        back = self._rerun(self._fragment)
        state = back.rerun_script.widget_states.widgets.add()
        state.id, state.json_value = self._picture.id, json.dumps({"message": message})
        await self._connection.send(back.SerializeToString())
        await self._wait_until_served(self._sequence, patience_s)

    async def listen(self) -> None:
        """Take in what the server sends, until the connection ends."""
        await self._connection.send(self._rerun().SerializeToString())
        try:
            async for data in self._connection:
                async with self._changed:
                    self._take_in(ForwardMsg.FromString(data))
                    self._changed.notify_all()
        finally:
            self._stop_repeating()

    async def _wait_until_served(self, number: int, patience_s: float) -> None:
        async with asyncio.timeout(patience_s), self._changed:
            await self._changed.wait_for(lambda: self._served >= number)

    def _take_in(self, message: ForwardMsg) -> None:
        kind = message.WhichOneof("type")
        if kind == "new_session" and not message.metadata.run.fragment_ids:
            self._stop_repeating()
        elif kind == "page_info_changed":
            self._query = message.page_info_changed.query_string
        elif kind == "auto_rerun":
            self._repeat(message.auto_rerun.fragment_id, message.auto_rerun.interval)
        elif kind == "delta" and message.delta.WhichOneof("type") == "new_element":
            self._show(message.delta.new_element, message.delta.fragment_id)

    def _show(self, element: Any, fragment: str) -> None:
        kind = element.WhichOneof("type")
        if kind == "bidi_component" and element.bidi_component.component_name == "circuit":
            self._picture, self._fragment = element.bidi_component, fragment
        elif kind == "bidi_component" and element.bidi_component.component_name == "figures":
            self._served = json.loads(element.bidi_component.json)["served"]
        elif kind in ("alert", "markdown"):
            self.said.append(getattr(element, kind).body)

    def _repeat(self, fragment: str, interval: float) -> None:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(interval)
                await self._connection.send(self._rerun(fragment, True).SerializeToString())

        if fragment not in self._repeats:
            self._repeats[fragment] = asyncio.create_task(repeat())

    def _stop_repeating(self) -> None:
        for task in self._repeats.values():
            task.cancel()
        self._repeats.clear()

    def _rerun(self, fragment: str = "", is_auto: bool = False) -> BackMsg:
        message = BackMsg()
        message.rerun_script.query_string = self._query
        message.rerun_script.fragment_id = fragment
        message.rerun_script.is_auto_rerun = is_auto
        return message


@asynccontextmanager
async def visiting(address: str, **query: object) -> AsyncIterator[Visitor]:
    """A session on the server at this address, with the page that the query asks for."""
    stream = f"{address.replace('http', 'ws', 1)}/_stcore/stream"
    async with (
        connect(stream, subprotocols=[Subprotocol("streamlit")], max_size=None) as connection,
        asyncio.TaskGroup() as tasks,
    ):
        visitor = Visitor(connection, urlencode(query))
        listening = tasks.create_task(visitor.listen())
        yield visitor
        listening.cancel()
