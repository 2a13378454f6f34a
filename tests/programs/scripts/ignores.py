# ignores the signal, and all others
# Group: Who hears the notice
# Promise: what is whole; it is not waited for, and ended by force
# Expect: model.txt=1 used<3.5 event:notice_unheard
# How: window=6

import signal

from told import ready, train_for, write

for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
write("model.txt", "1")
ready()
train_for(60)
