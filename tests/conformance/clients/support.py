"""What the scripts share: where the server is, the picture, and how they report. Runs in the clients' environment."""

import json
import sys

URL, KEY, MODEL, PICTURE = sys.argv[1:]


def report(**found: object) -> None:
    """Print what a client got, for the test that started it."""
    sys.stdout.write(json.dumps(found) + "\n")
