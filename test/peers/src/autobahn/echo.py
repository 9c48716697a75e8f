# SPDX-License-Identifier: Apache-2.0
"""echo.py HOST:PORT: a WebSocket server that sends back what it gets."""

import asyncio
import logging
import sys

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(connection):
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:  # what most cases provoke
        pass


async def main():
    logging.disable(logging.CRITICAL)
    host, _, port = sys.argv[1].rpartition(":")
    async with serve(echo, host, int(port), max_size=None, ping_interval=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
