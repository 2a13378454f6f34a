"""The user's program on this VM: its code, its environment, its setup."""
