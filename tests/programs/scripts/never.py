# never saves anything
# Group: What else is in the folder
# Promise: nothing, and the record says that all is lost
# Expect: nothing lost>1 used>1
# How: window=3

from told import train_for, train_until_told

train_until_told()
train_for(60)
