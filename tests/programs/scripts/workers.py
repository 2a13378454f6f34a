# has workers that die of the signal by default
# Group: Who hears the notice
# Promise: its save: workers are not told
# Expect: model.txt=2 alive=yes

import subprocess

from told import train_for, train_until_told, write

workers = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
train_until_told()
train_for(0.3)
write("alive", "yes" if all(worker.poll() is None for worker in workers) else "no")
write("model.txt", "2")
train_for(60)
