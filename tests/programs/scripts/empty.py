# exits with status 0, and its folder is empty
# Group: How it ends
# Promise: the run stops and says so, at once; nothing is called complete
# Expect: nothing ending:crash used<5
# How: strike=end

from told import SAVES, ready

SAVES.mkdir(exist_ok=True)
ready()
