# exits with status 0: it is done
# Group: How it ends
# Promise: its folder is the run's result
# Expect: model.txt=9 ending:complete
# How: strike=end

from told import ready, write

ready()
write("model.txt", "9")
