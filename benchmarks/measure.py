"""One measurement in this process: ``python -m benchmarks.measure ROW CONTESTANT [quick]``."""

import json
import sys

from .contestants import CONTESTANTS
from .rows import ROWS

key, contestant, *quick = sys.argv[1:]
row = next(row for row in ROWS if row.key == key)
settings = {**row.settings, **(row.quick if quick else {})}
print(json.dumps(row.measure(CONTESTANTS[contestant], **settings)))
