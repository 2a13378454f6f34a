# stands under two launchers, as `accelerate launch` under `conda run` in a script
# Group: Who hears the notice
# Promise: its save
# Expect: model.txt=2

bash -c "\"\$0\" -c 'import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))' \"\$0\" -c '
from told import *
train_until_told()
train_for(0.4)
write(\"model.txt\", \"2\")
train_for(60)
'; true" "$PYTHON"
true
