# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that misbehaves: misbehaver.py FOLDER SEED KIND…

Each kind (misbehaviour_wire.py, misbehaviour_guest.py) goes round in a thread of its own until this
process is killed. A line "done KIND" is told after each round, "thrown out KIND WHY" if the daemon
had enough of it, "broken KIND WHY" if it is this program that is wrong.
"""

import contextlib
import os
import random
import sys
import threading
import time
import traceback

import fixture
import grpc
import transport
from api import Disconnected, Refused
from misbehaviour_guest import EXPECTED, GUEST
from misbehaviour_wire import WIRE

KINDS = {**WIRE, **GUEST}
REST_SECONDS = 0.5


class Trouble:
    """What one kind has in its hands during a round."""

    def __init__(self, folder, seed):
        self.folder, self.rng = folder, random.Random(seed)
        self.stack = contextlib.ExitStack()
        self.orphans, self.streams = [], []
        self.turn = 0

    def keep(self, closeable):
        self.stack.callback(closeable.close)

    def keep_fd(self, fd):
        self.stack.callback(os.close, fd)

    def release(self):
        self.stack.close()

    def client(self, name=None):
        """With a session, over the transports in turn."""
        self.turn += 1
        client = self.patiently(lambda: self.connect(name or ("grpc", "native")[self.turn % 2]))
        # over gRPC it would last as long as this process
        self.stack.callback(fixture.end_session, client)
        return client

    def connect(self, name):
        client = transport.TRANSPORTS[name](self.folder)
        try:
            client.open_session("misbehaver")
        except EXPECTED:
            client.close()
            raise
        self.keep(client)
        return client

    @staticmethod
    def pause(seconds):
        time.sleep(seconds)

    @staticmethod
    def patiently(call, tries=30):
        """What other threads of this tenant use up may be free in a moment."""
        for turn in range(tries - 1):
            try:
                return call()
            except EXPECTED:
                time.sleep(0.01 * turn)
        return call()


def tell(*words):
    line = " ".join(str(w).replace("\n", " | ") for w in words) + "\n"
    # one write, so that lines of several threads do not mix
    os.write(1, line.encode()[:4000])


def go_round(kind, trouble):
    try:
        KINDS[kind](trouble)
        tell("done", kind)
    except EXPECTED + (grpc.RpcError,) as error:
        tell("thrown-out", kind, type(error).__name__, error)
    except Exception:  # noqa: BLE001: this program's own mistake is the finding
        tell("broken", kind, traceback.format_exc())
        trouble.pause(1)
    finally:
        try:
            trouble.release()
        except (Refused, Disconnected, OSError) as error:
            tell("thrown-out", kind, type(error).__name__, error)


def forever(kind, trouble):
    while True:
        go_round(kind, trouble)
        # for the others' turn at what one tenant may have
        trouble.pause(trouble.rng.uniform(0, REST_SECONDS))


def main():
    folder, seed, *kinds = sys.argv[1:]
    fixture.die_with_parent()
    threads = [
        threading.Thread(target=forever, args=(kind, Trouble(folder, "%s %s" % (seed, kind))), daemon=True)
        for kind in kinds
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
