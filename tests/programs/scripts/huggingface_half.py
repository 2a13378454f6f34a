# is killed amid a save as the Hugging Face Trainer writes it
# Group: Whose save it is
# Promise: the save before, and no half one that the Trainer would choose
# Expect: checkpoint-10/optimizer.pt=10 !checkpoint-20 step=10
# How: window=3.5

from told import train_for, train_until_told, write


def save(step: int, *, pause: float = 0.0) -> None:
    write(f"checkpoint-{step}/training_args.bin", str(step))
    train_for(pause)
    write(f"checkpoint-{step}/optimizer.pt", str(step))
    write(f"checkpoint-{step}/trainer_state.json", "{}")


save(10)
train_until_told()
save(20, pause=60)
