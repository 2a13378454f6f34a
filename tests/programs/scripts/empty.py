# exits with status 0, and its folder is empty
# Group: How it ends
# Promise: the run stops and says so, at once, and what was written elsewhere; nothing is called complete
# Expect: nothing ending:crash used<5 said:outputs/model.txt
# How: strike=end

from pathlib import Path

from told import SAVES, ready

SAVES.mkdir(exist_ok=True)
Path("outputs").mkdir()
Path("outputs/model.txt").write_text("2" * 100_000)
ready()
