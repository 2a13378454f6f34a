# crashes, having saved
# Group: How it ends
# Promise: a crash with its record; what it had saved goes on from the disk it is on
# Expect: ending:crash
# How: strike=end

from told import ready, write

write("model.txt", "1")
ready()
raise SystemExit("out of luck")
