# stands under a launcher like torchrun, which dies of SIGUSR1
# Group: Who hears the notice
# Promise: the rank's save: the rank is told, its launcher is not
# Expect: model.txt=2

import subprocess
import sys

WORK = "from told import *; train_until_told(); train_for(0.4); write('model.txt', '2')"
sys.exit(subprocess.call([sys.executable, "-c", WORK]))
