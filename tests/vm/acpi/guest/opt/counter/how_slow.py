"""Prints the seconds of processor time that a fixed piece of work takes: `python3 how_slow.py`."""

import time


def main() -> None:
    begun = time.process_time()
    table: dict[int, int] = {}
    for number in range(300_000):
        table[number % 977] = table.get(number % 991, 0) + number
    print(f"work took {time.process_time() - begun:.4f} s")


if __name__ == "__main__":
    main()
