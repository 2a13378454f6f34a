# saves when it is interrupted: `except KeyboardInterrupt`
# Group: Who hears the notice
# Promise: its save, with `notice_signal: SIGINT`
# Expect: model.txt=2
# How: signal=SIGINT

import time

from told import ready, write

try:
    ready()
    time.sleep(60)
except KeyboardInterrupt:
    write("model.txt", "2")
    raise
