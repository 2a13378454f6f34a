# saves as the Hugging Face Trainer does: `trainer_state.json` last
# Group: Whose save it is
# Promise: its save, whole, though the program pauses in it; its steps
# Expect: checkpoint-20/optimizer.pt=20 checkpoint-20/trainer_state.json step=20
# How: window=6

from told import train_for, train_until_told, write


def save(step: int, *, pause: float = 0.0) -> None:
    write(f"checkpoint-{step}/training_args.bin", str(step))
    train_for(pause)
    write(f"checkpoint-{step}/optimizer.pt", str(step))
    write(f"checkpoint-{step}/trainer_state.json", "{}")


save(10)
train_until_told()
save(20, pause=1.8)
train_for(60)
