# begins to save late in the window: its step is long
# Group: How it saves
# Promise: its save: it is waited for as long as the bytes allow
# Expect: model.txt=2 used>2.5
# How: window=6

from told import train_for, train_until_told, write

write("model.txt", "1")
train_until_told()
train_for(2.5)
write("model.txt", "2")
train_for(60)
