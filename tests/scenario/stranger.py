# SPDX-License-Identifier: LGPL-2.1-or-later
"""A client that runs as another user: tries what is not its own, tells as JSON what it got."""

import json
import os
import sys

import transport
from api import Disconnected, Refused, pb


def outcome(call):
    try:
        call()
        return "OK"
    except Refused as error:
        # a gRPC client sees a dropped connection as UNAVAILABLE
        return "refused" if error.code in ("PERMISSION_DENIED", "UNAVAILABLE") else error.code
    except (Disconnected, OSError):
        return "refused"


def main():
    folder, name = sys.argv[1:]
    task = json.load(sys.stdin)
    told = {"uid": os.getuid()}
    client = transport.TRANSPORTS[name](folder)
    told["session"] = outcome(client.open_session)
    if told["session"] == "OK" and task:
        client.call("CreateGuest", pb.CreateGuestRequest(name="stranger"))
        requests = {
            "DescribeGuest": pb.DescribeGuestRequest(guest=task["guest"]),
            "DestroyGuest": pb.DestroyGuestRequest(guest=task["guest"]),
            "ResetGuest": pb.ResetGuestRequest(guest=task["guest"]),
            "OpenDevice": pb.OpenDeviceRequest(guest=task["guest"], function_id=5),
            "CloseDevice": pb.CloseDeviceRequest(device=task["device"]),
            "GetDescriptor": pb.GetDescriptorRequest(device=task["device"]),
            "DestroyNested": pb.DestroyNestedRequest(nested=task["nested"]),
            "RefreshNested": pb.RefreshNestedRequest(
                nested=task["nested"], ranges=[pb.RefreshNestedRequest.Range(start=1 << 32, length=4096)]
            ),
            "WatchEvents": pb.WatchEventsRequest(guest=task["guest"]),
        }
        told["codes"] = {m: outcome(lambda: client.call(m, r)) for m, r in requests.items()}
        told["guests"] = len(client.call("ListGuests").message.guests)
        thief = transport.Grpc(folder)
        thief.metadata = [(transport.SESSION_KEY, bytes.fromhex(task["secret"]))]
        told["stolen"] = outcome(lambda: thief.call("ListGuests"))
        thief.close()
        admin = transport.Grpc(os.path.join(folder, "admin"), "admin.sock")
        told["admin"] = outcome(lambda: admin.call("GetStatus"))
        admin.close()
    client.close()
    json.dump(told, sys.stdout)


main()
