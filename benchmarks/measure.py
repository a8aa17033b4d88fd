"""One measurement in this process: ``python -m benchmarks.measure ROW CONTESTANT [quick]``."""

import json
import os
import sys

from .everybody import CONTESTANTS
from .rows import ROWS

key, contestant, *quick = sys.argv[1:]
row = next(row for row in ROWS if row.key == key)
settings = {**row.settings, **(row.quick if quick else {})}
print(json.dumps(row.measure(CONTESTANTS[contestant], **settings)), flush=True)
# Threads that a contestant leaves behind are no concern of the next one.
os._exit(0)
