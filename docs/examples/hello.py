"""Two services of one program meet, and say hello: the whole life of a connection.

Usage: python3 hello.py [ENDPOINT], where both listen, by default tcp://127.0.0.1:0.
"""

import asyncio
import sys

import crust


async def main(endpoint: str) -> None:
    """Let Bob connect to Alice, and greet her."""
    config = crust.Config(network_name="example", listen=[endpoint])
    async with crust.Service(config) as alice, crust.Service(config) as bob:
        info = await alice.prepare_connection_info()
        await bob.connect(info)  # real programs send the info to the other one somehow
        await bob.send_receipt(alice.id, b"hello")  # returns when it has arrived
        async for event in alice:
            if isinstance(event, crust.Message):
                print("bob says", event.data.decode())
                break


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:0"))
